package prove

var tm004 = Proof{ID: "TM-004", Title: "requests to inner networks", NotBuilt: "its proof"}
