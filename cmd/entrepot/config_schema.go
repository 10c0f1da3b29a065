package main

import (
	"encoding"
	"encoding/json"
	"reflect"

	"github.com/spf13/cobra"
)

func configSchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Write the JSON schema of configuration files",
		Long: `Schema writes the JSON schema (draft 2020-12) of configuration files, for
editors and for what generates them. It has every key with the shape of its
value; what values mean is told by config check.`,
		Args: cobra.NoArgs,
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			schema := schemaOf(reflect.TypeFor[Config]())
			schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
			schema["title"] = "Configuration of entrepot"
			out := json.NewEncoder(cmd.OutOrStdout())
			out.SetEscapeHTML(false)
			out.SetIndent("", "  ")
			return out.Encode(schema)
		}),
	}
}

// schemaOf is the schema of what yamlconf decodes into a type. Any single value
// may be a text, because it may be a reference such as ${VAR}.
func schemaOf(t reflect.Type) map[string]any {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return map[string]any{"type": []string{"string", "number"}}
	}
	switch t.Kind() {
	case reflect.Struct:
		keys := map[string]any{}
		for f := range t.Fields() {
			keys[f.Tag.Get("yaml")] = schemaOf(f.Type)
		}
		return map[string]any{"type": []string{"object", "null"}, "properties": keys, "additionalProperties": false}
	case reflect.Map:
		return map[string]any{"type": []string{"object", "null"}, "additionalProperties": schemaOf(t.Elem())}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem())}
	case reflect.Bool:
		return reference("boolean")
	case reflect.Int:
		return reference("integer")
	default:
		return map[string]any{"type": []string{"string", "number", "boolean"}}
	}
}

// reference is a value of a type, or what stands for one.
func reference(kind string) map[string]any {
	return map[string]any{"anyOf": []any{
		map[string]any{"type": kind},
		map[string]any{"type": "string", "pattern": `\$\{`},
	}}
}
