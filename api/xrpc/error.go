package xrpc

// ErrorBody is the body of every error answer. Clients map Error to the errors that the
// endpoint's lexicon names, and fall back to the status.
type ErrorBody struct {
	// Error is a name without spaces: EpochMismatch.
	Error string `json:"error"`
	// Message is a sentence for people; it never holds payloads, tokens or keys.
	Message string `json:"message"`
	// RetryAfterSeconds comes with GroupFrozen and RateLimited, as in the header
	// Retry-After.
	RetryAfterSeconds *int64 `json:"retryAfterSeconds,omitempty"`
	// Scope is the unit that RateLimited counts: convo or device-convo.
	Scope string `json:"scope,omitempty"`
}

// Names of errors that any endpoint may answer with, besides those of its lexicon.
const (
	ErrorInvalidRequest         = "InvalidRequest"         // 400
	ErrorAuthenticationRequired = "AuthenticationRequired" // 401
	ErrorForbidden              = "Forbidden"              // 403
	ErrorPayloadTooLarge        = "PayloadTooLarge"        // 413
	ErrorRateLimited            = "RateLimited"            // 429, with Retry-After
	ErrorInternal               = "InternalServerError"    // 500
	ErrorMethodNotImplemented   = "MethodNotImplemented"   // 501
	ErrorUnavailable            = "ServiceUnavailable"     // 503
)
