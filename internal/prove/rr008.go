package prove

var rr008 = Proof{ID: "RR-008", Title: "denial of service by churn", NotBuilt: "its proof"}
