package main

import (
	"fmt"
	"io"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"waxwing.im/waxwing/internal/server"
)

type configCommand struct {
	server.Config `embed:""`
	Sample        bool `help:"Print a sample configuration file with every option explained, instead."`
}

// Help returns the text below the flags.
func (configCommand) Help() string {
	return "Takes the options of serve. The answer is a configuration file itself, apart from masked secrets."
}

// Run prints the options, or the sample.
func (c *configCommand) Run(std streams, parsed *kong.Context) error {
	if c.Sample {
		return printSample(std.out, parsed.Selected())
	}
	for _, flag := range serverFlags(parsed.Selected()) {
		source := "default"
		if element := elementOf(parsed, flag.Name); element != nil && element.Resolved {
			source = "file"
		} else if element != nil {
			source = "flag"
		} else if name := environmentOf(flag); name != "" {
			source = name
		}
		value := tomlValue(flag.Target)
		if flag.Tag.Get("secret") == "url" {
			value = strconv.Quote(maskURL(flag.Target.String()))
		}
		if _, err := fmt.Fprintf(std.out, "%s = %s  # %s\n", flag.Name, value, source); err != nil {
			return err
		}
	}
	return nil
}

// serverFlags returns the flags of node that configure the server, in their order.
func serverFlags(node *kong.Node) []*kong.Flag {
	var flags []*kong.Flag
	for _, flag := range node.Flags {
		if flag.Name != "help" && flag.Name != "sample" {
			flags = append(flags, flag)
		}
	}
	return flags
}

// printSample writes a file that changes nothing: every option is explained and set to its
// default, in a comment.
func printSample(w io.Writer, node *kong.Node) error {
	text := &strings.Builder{}
	text.WriteString("# Options of waxwing serve. Flags and the environment win over this file.\n")
	for _, flag := range serverFlags(node) {
		text.WriteString("\n")
		for _, line := range wrapped(flag.Help, 78) {
			fmt.Fprintf(text, "# %s\n", line)
		}
		zero := reflect.New(flag.Target.Type()).Elem()
		value := tomlValue(zero)
		if flag.HasDefault {
			value = flag.Default
			if kind := flag.Target.Kind(); kind == reflect.String || isDuration(flag.Target) {
				value = strconv.Quote(value)
			}
		}
		fmt.Fprintf(text, "# --%s, %s\n#%s = %s\n", flag.Name, flag.Envs[0], flag.Name, value)
	}
	_, err := io.WriteString(w, text.String())
	return err
}

func isDuration(v reflect.Value) bool { return v.Type() == reflect.TypeFor[time.Duration]() }

func tomlValue(v reflect.Value) string {
	if isDuration(v) {
		return strconv.Quote(v.Interface().(time.Duration).String())
	}
	switch v.Kind() {
	case reflect.String:
		return strconv.Quote(v.String())
	case reflect.Slice:
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = tomlValue(v.Index(i))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return fmt.Sprint(v.Interface())
}

// maskURL hides the secrets of a database URL: the password, and the query, which may contain
// another one.
func maskURL(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "***"
	}
	if _, has := u.User.Password(); has {
		u.User = url.UserPassword(u.User.Username(), "***")
	}
	query := u.Query()
	for key := range query {
		if key != "sslmode" && key != "host" && key != "port" {
			query.Set(key, "***")
		}
	}
	u.RawQuery = query.Encode()
	return strings.ReplaceAll(u.String(), "%2A%2A%2A", "***")
}

func wrapped(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
