package prove

var rr009 = Proof{ID: "RR-009", Title: "state of MLS", NotBuilt: "its proof"}
