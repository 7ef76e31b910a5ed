//go:build race

package client

// raceDetector says that the tests run with the race detector, several times slower.
const raceDetector = true
