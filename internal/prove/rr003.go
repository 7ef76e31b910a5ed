package prove

var rr003 = Proof{ID: "RR-003", Title: "order and idempotency", NotBuilt: "its proof"}
