package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/alecthomas/kong"
)

// configFileName finds --config before the command line is parsed: the options in the file take
// part in the parsing.
func configFileName(args []string) string {
	for i, arg := range args {
		if value, ok := strings.CutPrefix(arg, "--config="); ok {
			return value
		}
		if (arg == "--config" || arg == "-c") && i+1 < len(args) {
			return args[i+1]
		}
		if arg == "--" {
			break
		}
	}
	return os.Getenv("WAXWING_CONFIG")
}

// configFile provides options from a TOML file to kong.
type configFile struct {
	name   string // "" if there is none
	values map[string]string
}

func readConfigFile(name string) (*configFile, error) {
	file := &configFile{name: name, values: map[string]string{}}
	if name == "" {
		return file, nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		var reason *fs.PathError
		if errors.As(err, &reason) {
			err = reason.Err
		}
		return nil, fmt.Errorf("config: %s: %w", name, err)
	}
	raw := map[string]any{}
	if _, err := toml.Decode(string(text), &raw); err != nil {
		return nil, fmt.Errorf("config: %s: %w", name, err)
	}
	for key, value := range raw {
		if file.values[key], err = optionText(value); err != nil {
			return nil, fmt.Errorf("config: %s: %s: %w", name, key, err)
		}
	}
	return file, nil
}

// optionText formats a TOML value as an argument of the command line.
func optionText(value any) (string, error) {
	switch v := value.(type) {
	case string, int64, bool:
		return fmt.Sprint(v), nil
	case []any:
		parts := make([]string, len(v))
		for i, element := range v {
			text, ok := element.(string)
			if !ok {
				return "", errors.New("a list contains texts")
			}
			parts[i] = kong.JoinEscaped([]string{text}, ',')
		}
		return strings.Join(parts, ","), nil
	}
	return "", errors.New("want a text, a whole number, true, false or a list of texts")
}

// Validate refuses unknown names, which are most likely misspelt.
func (f *configFile) Validate(app *kong.Application) error {
	known := map[string]bool{}
	var collect func(node *kong.Node)
	collect = func(node *kong.Node) {
		for _, flag := range node.Flags {
			known[flag.Name] = true
		}
		for _, child := range node.Children {
			collect(child)
		}
	}
	collect(app.Node)
	var unknown []string
	for key := range f.values {
		if !known[key] || key == "config" || key == "help" {
			unknown = append(unknown, key)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	return fmt.Errorf("config: %s: no such option: %s", f.name, strings.Join(unknown, ", "))
}

// Resolve leaves an option to the environment if that sets it; kong would let a file overrule
// it.
func (f *configFile) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	value, ok := f.values[flag.Name]
	if !ok || environmentOf(flag) != "" {
		return nil, nil
	}
	return value, nil
}

// environmentOf returns the variable that sets flag in the environment, or "".
func environmentOf(flag *kong.Flag) string {
	for _, name := range flag.Envs {
		if _, ok := os.LookupEnv(name); ok {
			return name
		}
	}
	return ""
}
