package prove

// The rows with mitigations that are not built.
var (
	rr002 = Proof{ID: "RR-002", Title: "privacy of presence", NotBuilt: "presence"}
	rr006 = Proof{ID: "RR-006", Title: "retention", NotBuilt: "retention"}
	tm001 = Proof{ID: "TM-001", Title: "injection by a peer", NotBuilt: "federation"}
	tm002 = Proof{ID: "TM-002", Title: "spoofed sender of a peer", NotBuilt: "federation"}
	tm003 = Proof{ID: "TM-003", Title: "key packages drained by peers", NotBuilt: "federation"}
	tm006 = Proof{ID: "TM-006", Title: "flood by a peer", NotBuilt: "federation"}
	tm007 = Proof{ID: "TM-007", Title: "confused methods", NotBuilt: "federation"}
)
