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
	name     string // "" if there is none
	settings map[string]setting
	taken    map[string]setting // those that flags and the environment did not overrule, by the flag's name
}

// setting is a value and the line of the file that begins it.
type setting struct {
	value string
	line  int
}

func readConfigFile(name string) (*configFile, error) {
	file := &configFile{name: name, settings: map[string]setting{}, taken: map[string]setting{}}
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
		var parse toml.ParseError
		if errors.As(err, &parse) {
			return nil, fmt.Errorf("%s:%d: %s", name, parse.Position.Line, parse.Message)
		}
		return nil, fmt.Errorf("config: %s: %w", name, err)
	}
	// The parser does not tell lines. As the whole is valid, each part that begins where
	// another one ends and is valid by itself is a blank line, a comment, or a key with its value.
	part, begin, number := "", 1, 0
	for line := range strings.Lines(string(text)) {
		part += line
		number++
		raw := map[string]any{}
		if _, err := toml.Decode(part, &raw); err != nil {
			continue
		}
		for key, value := range raw {
			text, err := optionText(value)
			if err != nil {
				return nil, fmt.Errorf("%s:%d: %s: %w", name, begin, key, err)
			}
			file.settings[key] = setting{text, begin}
		}
		part, begin = "", number+1
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
			switch element.(type) {
			case string, int64:
				parts[i] = kong.JoinEscaped([]string{fmt.Sprint(element)}, ',')
			default:
				return "", errors.New("a list contains texts and whole numbers")
			}
		}
		return strings.Join(parts, ","), nil
	}
	return "", errors.New("want a text, a whole number, true, false or a list of texts or whole numbers")
}

// Validate refuses unknown names, which are most likely misspelt.
func (f *configFile) Validate(app *kong.Application) error {
	known := map[string]bool{}
	var collect func(node *kong.Node)
	collect = func(node *kong.Node) {
		for _, flag := range node.Flags {
			known[flag.Name] = known[flag.Name] || len(flag.Envs) > 0
			for _, alias := range flag.Aliases {
				known[alias] = true
			}
		}
		for _, child := range node.Children {
			collect(child)
		}
	}
	collect(app.Node)
	var unknown []string
	for key := range f.settings {
		if !known[key] || key == "config" {
			unknown = append(unknown, key)
		}
	}
	slices.SortFunc(unknown, func(a, b string) int { return f.settings[a].line - f.settings[b].line })
	var errs []error
	for _, key := range unknown {
		errs = append(errs, fmt.Errorf("%s:%d: no such option: %s", f.name, f.settings[key].line, key))
	}
	return errors.Join(errs...)
}

// Resolve leaves an option to the environment if that sets it; kong would let a file overrule
// it. An option without a variable is for the command line alone: the database of serve is not
// the one that prove attacks.
func (f *configFile) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if len(flag.Envs) == 0 || environmentOf(flag) != "" {
		return nil, nil
	}
	for _, name := range append([]string{flag.Name}, flag.Aliases...) {
		if setting, ok := f.settings[name]; ok {
			f.taken[flag.Name] = setting
			return setting.value, nil
		}
	}
	return nil, nil
}

// locate adds the line of the file to each message about an option whose value is from there.
// Such messages begin with the name of the option.
func (f *configFile) locate(err error) error {
	var lines []error
	for line := range strings.Lines(err.Error()) {
		line = strings.TrimSuffix(line, "\n")
		name, _, _ := strings.Cut(line, " ")
		if setting, ok := f.taken[strings.Trim(name, "-:,")]; ok {
			line = fmt.Sprintf("%s:%d: %s", f.name, setting.line, line)
		}
		lines = append(lines, errors.New(line))
	}
	return errors.Join(lines...)
}

// elementOf returns the place where the command line or the file sets an option; nil if neither
// does.
func elementOf(parsed *kong.Context, name string) *kong.Path {
	for _, element := range parsed.Path {
		if element.Flag != nil && element.Flag.Name == name {
			return element
		}
	}
	return nil
}

// isFlag reports whether an option is set on the command line.
func isFlag(parsed *kong.Context, name string) bool {
	element := elementOf(parsed, name)
	return element != nil && !element.Resolved
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
