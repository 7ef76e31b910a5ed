package prove

var rr004 = Proof{ID: "RR-004", Title: "echo before apply", NotBuilt: "its proof"}
