{{/* The name of the release's objects: "entrepot" in a release of that name. */}}
{{- define "entrepot.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 45 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 45 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels by which a role's pods are found; they never change. Takes (dict "root" $ "role" "node"). */}}
{{- define "entrepot.selectorLabels" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end -}}

{{/* Labels of every object of a role. */}}
{{- define "entrepot.labels" -}}
{{ include "entrepot.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: entrepot
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "entrepot.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "entrepot.serviceAccount" -}}
{{- default (ternary (include "entrepot.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "entrepot.adminSecret" -}}
{{- default (printf "%s-admin" (include "entrepot.fullname" .)) .Values.admin.existingSecret -}}
{{- end -}}

{{/* The port that a role listens on in its pod. */}}
{{- define "entrepot.port" -}}
{{- get (dict "node" "5000" "origin" "5001" "router" "8080") . -}}
{{- end -}}

{{/* 85 % of a volume as a size of entrepot's: a file system needs room, and so do downloads in progress. */}}
{{- define "entrepot.volumeShare" -}}
{{- $size := regexFind "^[0-9]+" . | int -}}
{{- if hasSuffix "Ti" . }}{{ $size = mul $size 1024 }}{{ end -}}
{{- printf "%dMiB" (mul $size 870) -}}
{{- end -}}

{{/* The configuration file of a role. Takes (dict "root" $ "role" "node" "v" .Values.node). */}}
{{- define "entrepot.config" -}}
{{- $section := deepCopy .v.config -}}
{{- range $key := list "listen" "tls" -}}
  {{- if hasKey $section $key }}{{ fail (printf "%s.config.%s is the chart's to set: use %s.service and %s.tlsSecret" $.role $key $.role $.role) }}{{ end -}}
{{- end -}}
{{- $_ := set $section "listen" (printf ":%s" (include "entrepot.port" .role)) -}}
{{- if .v.tlsSecret -}}
  {{- $_ := set $section "tls" (dict "cert" "/etc/entrepot/tls/tls.crt" "key" "/etc/entrepot/tls/tls.key") -}}
{{- end -}}
{{- if and (eq .role "node") (not (hasKey $section "store")) -}}
  {{- $_ := set $section "store" (dict "dir" "/var/lib/entrepot/store" "max_size" (include "entrepot.volumeShare" .v.volume.size)) -}}
{{- end -}}
{{- if and (eq .role "node") (not (hasKey $section "upstreams")) (not (hasKey $section "files")) -}}
  {{- $_ := set $section "upstreams" (dict "docker.io" dict "registry.k8s.io" dict "ghcr.io" dict "quay.io" dict) -}}
{{- end -}}
{{- if and (eq .role "origin") (not (hasKey $section "store")) -}}
  {{- $_ := set $section "store" (dict "dir" "/var/lib/entrepot/store") -}}
{{- end -}}
{{- if and (eq .role "origin") .v.htpasswdSecret -}}
  {{- $_ := set $section "htpasswd" "/etc/entrepot/htpasswd/htpasswd" -}}
{{- end -}}
{{- if and (eq .role "router") .v.geoUpdate.enabled -}}
  {{- $geo := deepCopy (default dict $section.geo) -}}
  {{- if hasKey $geo "dir" }}{{ fail "router.config.geo.dir is the chart's to set where router.geoUpdate is enabled" }}{{ end -}}
  {{- $_ := set $section "geo" (set $geo "dir" "/var/lib/entrepot/geo") -}}
{{- end -}}
{{- if and (eq .role "router") (not $section.mirrors) -}}
  {{- fail "router.config.mirrors is empty: a router needs mirrors to send clients to" -}}
{{- end -}}
{{- with .root.Values.log }}
log: {{- toYaml . | nindent 2 }}
{{- end }}
admin:
  listen: ":9090"
  token: ${ADMIN_TOKEN}
{{ .role }}: {{- toYaml $section | nindent 2 }}
{{- end -}}

{{/* A change of this needs new pods. A router takes a changed list of mirrors into use by itself. */}}
{{- define "entrepot.configChecksum" -}}
{{- $v := .v -}}
{{- if eq .role "router" -}}
  {{- $v = mustMergeOverwrite (deepCopy .v) (dict "config" (dict "mirrors" (list "any"))) -}}
{{- end -}}
{{- include "entrepot.config" (dict "root" .root "role" .role "v" $v) | sha256sum -}}
{{- end -}}

{{/* A duration of a configuration in seconds. */}}
{{- define "entrepot.seconds" -}}
{{- $sum := 0.0 -}}
{{- range regexFindAll "[0-9.]+(ms|s|m|h|d)" . -1 -}}
  {{- $unit := get (dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0) (regexFind "[a-z]+$" .) -}}
  {{- $sum = addf $sum (mulf (regexFind "^[0-9.]+" . | float64) $unit) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{/* Refuses what would have pods killed in the middle of a transfer: the cluster counts from the sleep on, and what is left after the
last transfer may take 10 s. */}}
{{- define "entrepot.checkGrace" -}}
{{- $timeout := default (ternary "10s" "30s" (eq .role "router")) .v.config.shutdown_timeout -}}
{{- $needed := addf (include "entrepot.seconds" $timeout | float64) (float64 .v.preStopSleepSeconds) 10 | ceil | int -}}
{{- if lt (int .v.terminationGracePeriodSeconds) $needed -}}
  {{- fail (printf "%s.terminationGracePeriodSeconds is %d: with a shutdown_timeout of %s it has to be at least %d" .role (int .v.terminationGracePeriodSeconds) $timeout $needed) -}}
{{- end -}}
{{- end -}}

{{/* The pod security standard's restricted level. */}}
{{- define "entrepot.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
# A large volume is not walked through at each start.
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "entrepot.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Egress that every role needs, unless values have rules. Takes (dict "root" $ "rules" list). */}}
{{- define "entrepot.egress" -}}
{{- if .rules -}}
{{- toYaml .rules }}
{{- else -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
- to:
    - ipBlock: {cidr: 0.0.0.0/0, except: [169.254.0.0/16]}
    - ipBlock: {cidr: "::/0", except: ["fe80::/10"]}
  ports:
    - {port: 80, protocol: TCP}
    - {port: 443, protocol: TCP}
- to:
    - podSelector:
        matchLabels:
          app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | trunc 63 | trimSuffix "-" }}
          app.kubernetes.io/instance: {{ .root.Release.Name }}
  ports:
    - {port: 5000, protocol: TCP}
    - {port: 5001, protocol: TCP}
    - {port: 8080, protocol: TCP}
{{- end -}}
{{- end -}}
