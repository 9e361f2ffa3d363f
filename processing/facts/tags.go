package facts

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// The limits of the tags that are kept as they are.
const (
	MaxTags   = 16 << 10 // bytes of JSON
	tagText   = 500      // characters of a value
	tagValues = 16       // of a list
)

// tags are raw values by "Group:Name", as exiftool calls them: a string, a float64, or a list of those.
type tags map[string]any

// keep lets the first of two equal names win that says anything.
func (t tags) keep(group, name string, value any) {
	key := group + ":" + name
	if _, seen := t[key]; seen || len(t) >= maxTags {
		return
	}
	if v := plain(value); v != nil && v != "" {
		t[key] = v
	}
}

// plain returns a value as JSON can have it, or nil if it is neither text, a number nor a short list of them.
func plain(value any) any {
	switch v := value.(type) {
	case string:
		return cleanText(v, maxTagSize)
	case interface{ Float64() float64 }:
		return finite(v.Float64())
	case float64:
		return finite(v)
	case float32:
		return finite(float64(v))
	case uint8:
		return float64(v)
	case uint16:
		return float64(v)
	case uint32:
		return float64(v)
	case int32:
		return float64(v)
	case int:
		return float64(v)
	case []string:
		list := make([]any, len(v))
		for i, text := range v {
			list[i] = text
		}
		return plain(list)
	case []any:
		return plainList(v)
	}
	return nil
}

func plainList(list []any) any {
	if len(list) > tagValues {
		return nil
	}
	kept := make([]any, 0, len(list))
	for _, value := range list {
		if _, nested := value.([]any); nested {
			return nil
		}
		if v := plain(value); v != nil {
			kept = append(kept, v)
		}
	}
	return kept
}

func finite(f float64) any {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil
	}
	return f
}

// text returns a value as text; of a list, the first one: lists of languages begin with the default (ISO 16684-1, 8.2.2.4).
func (t tags) text(name string) string {
	value := t[name]
	if list, ok := value.([]any); ok && len(list) > 0 {
		value = list[0]
	}
	text, _ := value.(string)
	return text
}

// number returns a value as a number, also of text such as "255/10", which is how XMP has them.
func (t tags) number(name string) *float64 {
	switch value := t[name].(type) {
	case float64:
		return &value
	case string:
		numerator, denominator, isRatio := strings.Cut(value, "/")
		n, err := strconv.ParseFloat(numerator, 64)
		if err != nil {
			return nil
		}
		if isRatio {
			d, err := strconv.ParseFloat(denominator, 64)
			if err != nil || d == 0 {
				return nil
			}
			n /= d
		}
		if finite(n) == nil {
			return nil
		}
		return &n
	}
	return nil
}

// json is the tags as an object of groups, of at most MaxTags bytes, or nil if there are none. The longest are left out
// until the rest fits, and truncated says so.
func (t tags) json() (encoded json.RawMessage, truncated bool) {
	type entry struct {
		key, name, group string
		value            any
		size             int
	}
	entries := make([]entry, 0, len(t))
	for _, key := range slices.Sorted(maps.Keys(t)) {
		group, name, _ := strings.Cut(key, ":")
		value, cut := shorten(t[key])
		truncated = truncated || cut
		text, err := json.Marshal(value)
		if err != nil {
			continue
		}
		// A group's name is counted with each of its tags, which is more than it takes, never less.
		entries = append(entries, entry{key, name, group, value, len(text) + len(key) + len(`"":{"":},`)})
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return a.size - b.size })
	groups, size := map[string]map[string]any{}, len(`{}`)
	for _, e := range entries {
		if size += e.size; size > MaxTags {
			truncated = true
			break
		}
		if groups[e.group] == nil {
			groups[e.group] = map[string]any{}
		}
		groups[e.group][e.name] = e.value
	}
	if len(groups) == 0 {
		return nil, truncated
	}
	encoded, err := json.Marshal(groups)
	if err != nil || len(encoded) > MaxTags { // a name is longer in JSON than in memory
		return nil, true
	}
	return encoded, truncated
}

// shorten cuts long text, also in a list.
func shorten(value any) (short any, cut bool) {
	switch v := value.(type) {
	case string:
		short := cleanText(v, tagText)
		return short, short != v
	case []any:
		list := make([]any, len(v))
		for i := range v {
			var shorter bool
			list[i], shorter = shorten(v[i])
			cut = cut || shorter
		}
		return list, cut
	}
	return value, false
}

// plausibleTags returns tags as [tags.json] makes them, whatever encoded is: the child that made it is not trusted.
func plausibleTags(encoded json.RawMessage, truncated bool) (json.RawMessage, bool) {
	if len(encoded) == 0 {
		return nil, truncated
	}
	var groups map[string]map[string]any
	if err := json.Unmarshal(encoded, &groups); err != nil {
		return nil, true
	}
	found := tags{}
	for group, values := range groups {
		for name, value := range values {
			found.keep(cleanText(group, textLimit), cleanText(name, textLimit), value)
		}
	}
	again, more := found.json()
	return again, truncated || more
}
