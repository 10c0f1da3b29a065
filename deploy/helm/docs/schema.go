package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"go.yaml.in/yaml/v3"
)

// roles are the sections whose `config` is a section of the configuration file.
func roles() []string { return []string{"node", "origin", "router"} }

// valuesSchema is the schema of the chart's values: the shapes of values.yaml,
// what constraint says of single ones, and the configuration's own.
func valuesSchema(root value, config []byte) ([]byte, error) {
	var whole struct {
		Properties map[string]map[string]any `json:"properties"`
	}
	if err := json.Unmarshal(config, &whole); err != nil {
		return nil, fmt.Errorf("reading the schema of the configuration: %w", err)
	}
	schema, err := schemaOf(root)
	if err != nil {
		return nil, err
	}
	defs := map[string]any{}
	for _, name := range append(roles(), "log") {
		defs[name] = whole.Properties[name]
	}
	schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	schema["title"] = "Values of the chart entrepot"
	schema["$defs"] = defs
	// What Helm gives to charts that are part of another.
	schema["properties"].(map[string]any)["global"] = map[string]any{"type": "object"}
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	out.SetEscapeHTML(false)
	out.SetIndent("", " ")
	err = out.Encode(schema)
	return b.Bytes(), err
}

// schemaOf is the schema of one value.
func schemaOf(v value) (map[string]any, error) {
	schema := map[string]any{}
	switch {
	case len(v.entries) > 0:
		keys := map[string]any{}
		for _, entry := range v.entries {
			s, err := schemaOf(entry)
			if err != nil {
				return nil, err
			}
			keys[last(entry.path)] = s
		}
		schema["type"], schema["properties"], schema["additionalProperties"] = "object", keys, false
	case v.node.Kind == yaml.MappingNode:
		schema["type"] = "object"
	case v.node.Kind == yaml.SequenceNode:
		schema["type"] = "array"
	default:
		kinds := map[string]string{"!!str": "string", "!!bool": "boolean", "!!int": "integer"}
		kind, ok := kinds[v.node.Tag]
		if !ok {
			return nil, fmt.Errorf("values.yaml, line %d: %s has no kind that the schema knows", v.node.Line, v.path)
		}
		schema["type"] = kind
	}
	if v.about != "" {
		schema["description"] = v.about
	}
	maps.Copy(schema, constraint(v.path))
	return schema, nil
}

func last(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

// constraint is what the default of a value cannot say about it.
func constraint(path string) map[string]any {
	one := func(of ...string) map[string]any { return map[string]any{"enum": of} }
	texts := map[string]any{"additionalProperties": map[string]any{"type": "string"}}
	objects := map[string]any{"items": map[string]any{"type": "object"}}
	strs := map[string]any{"items": map[string]any{"type": "string"}}
	for _, role := range append(roles(), "log") {
		if path == role+".config" || path == role {
			if path == role && role != "log" {
				break
			}
			return map[string]any{"$ref": "#/$defs/" + role}
		}
	}
	switch path {
	case "node.kind":
		return one("Deployment", "StatefulSet")
	case "image.pullPolicy":
		return one("Always", "IfNotPresent", "Never")
	case "image.digest":
		return map[string]any{"pattern": "^(sha256:[0-9a-f]{64})?$"}
	case "promotion.command":
		return one("plan", "apply")
	case "promotion.roots", "promotion.extraArgs":
		return strs
	}
	switch last(path) {
	case "size":
		return map[string]any{"pattern": "^[1-9][0-9]*(Gi|Ti)$"}
	case "type":
		return one("ClusterIP", "NodePort", "LoadBalancer")
	case "externalTrafficPolicy":
		return one("Cluster", "Local")
	case "whenUnsatisfiable":
		return one("DoNotSchedule", "ScheduleAnyway")
	case "maxUnavailable":
		return map[string]any{"type": []string{"integer", "string"}, "minimum": 1, "pattern": "^[1-9][0-9]?%$"}
	case "port":
		return map[string]any{"minimum": 1, "maximum": 65535}
	case "nodePort":
		return map[string]any{"minimum": 0, "maximum": 65535}
	case "targetCPU", "minReplicas", "maxReplicas", "interval", "activeDeadlineSeconds":
		if last(path) == "interval" {
			return map[string]any{"pattern": "^[0-9]+(ms|s|m|h)$"}
		}
		return map[string]any{"minimum": 1}
	case "replicas", "preStopSleepSeconds", "terminationGracePeriodSeconds", "ttlSecondsAfterFinished", "scaleDownWindow":
		return map[string]any{"minimum": 0}
	case "secretMounts":
		return map[string]any{"propertyNames": map[string]any{"pattern": "^[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?$"}, "additionalProperties": map[string]any{"type": "string"}}
	case "commonLabels", "annotations", "podAnnotations", "podLabels", "labels", "nodeSelector":
		return texts
	case "hosts", "hostnames":
		return strs
	case "resources":
		return map[string]any{
			"properties":           map[string]any{"requests": map[string]any{"type": "object"}, "limits": map[string]any{"type": "object"}, "claims": map[string]any{"type": "array"}},
			"additionalProperties": false,
		}
	case "imagePullSecrets", "env", "envFrom", "extraVolumes", "extraVolumeMounts", "tls", "parentRefs", "metrics", "from", "adminFrom",
		"egress", "tolerations", "initContainers":
		return objects
	}
	return nil
}
