package client

import "slices"

// isLost says whether a device of our account was declared lost.
func (c *Client) isLost(device string) bool {
	c.peopleMu.RLock()
	defer c.peopleMu.RUnlock()
	return slices.Contains(c.lost, device)
}
