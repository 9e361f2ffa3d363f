package auth

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tramo/tramo/tenant"
)

// A RoleMap says which of our roles each role of an identity provider's is. An empty map means that tokens carry our
// own names. A map that is not empty is the whole truth: our names are refused as well, unless they are in it, because
// the provider's "admin" is seldom an operator of the installation.
type RoleMap map[string]tenant.Role

// UnmarshalText reads pairs such as foreman=empleado,owner=constructora.
func (m *RoleMap) UnmarshalText(text []byte) error {
	parsed := RoleMap{}
	var mistakes []error
	for pair := range strings.SplitSeq(string(text), ",") {
		if strings.TrimSpace(string(text)) == "" {
			break
		}
		name, ours, found := strings.Cut(pair, "=")
		name, ours = strings.TrimSpace(name), strings.TrimSpace(ours)
		_, twice := parsed[name]
		switch {
		case !found || name == "":
			mistakes = append(mistakes, fmt.Errorf("%q is not a pair such as foreman=empleado", pair))
		case twice:
			mistakes = append(mistakes, fmt.Errorf("role %q is mapped twice", name))
		}
		parsed[name] = tenant.Role(ours)
	}
	if err := errors.Join(append(mistakes, parsed.Validate())...); err != nil {
		return err
	}
	*m = parsed
	return nil
}

// Validate reports which pairs do not name a role of ours.
func (m RoleMap) Validate() error {
	var mistakes []error
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if _, err := tenant.ParseRole(string(m[name])); err != nil {
			mistakes = append(mistakes, fmt.Errorf("role %q is mapped to none of ours: %w", name, err))
		}
	}
	return errors.Join(mistakes...)
}

// role returns the role that a token calls name.
func (m RoleMap) role(name string) (tenant.Role, error) {
	if len(m) == 0 {
		return tenant.ParseRole(name)
	}
	if r, ok := m[name]; ok {
		return r, nil
	}
	return "", fmt.Errorf("role %q is not in the role map", name)
}

// name returns what a token calls the role: of several names the first in the alphabet.
func (m RoleMap) name(r tenant.Role) (string, error) {
	if len(m) == 0 {
		return string(r), nil
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if m[name] == r {
			return name, nil
		}
	}
	return "", fmt.Errorf("the role map has no name for role %q", r)
}
