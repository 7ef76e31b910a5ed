package prove

var rr005 = Proof{ID: "RR-005", Title: "key packages", NotBuilt: "its proof"}
