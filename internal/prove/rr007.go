package prove

var rr007 = Proof{ID: "RR-007", Title: "any proxy", NotBuilt: "its proof"}
