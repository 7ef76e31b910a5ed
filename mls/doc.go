// Package mls is Messaging Layer Security (RFC 9420) for Go.
package mls
