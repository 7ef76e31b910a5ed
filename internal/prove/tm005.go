package prove

var tm005 = Proof{ID: "TM-005", Title: "replayed tokens", NotBuilt: "its proof"}
