package prove

var rr001 = Proof{ID: "RR-001", Title: "resume", NotBuilt: "its proof"}
