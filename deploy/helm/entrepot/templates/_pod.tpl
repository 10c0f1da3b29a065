{{/* The environment of a container that reads the configuration of a role. */}}
{{- define "entrepot.env" -}}
env:
  - name: ADMIN_TOKEN
    valueFrom:
      secretKeyRef: {name: {{ include "entrepot.adminSecret" .root }}, key: token}
  {{- with .v.env }}{{ toYaml . | nindent 2 }}{{ end }}
{{- with .v.envFrom }}
envFrom: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What such a container reads, and its scratch. */}}
{{- define "entrepot.mounts" -}}
- {name: config, mountPath: /etc/entrepot/config, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if .v.tlsSecret }}
- {name: tls, mountPath: /etc/entrepot/tls, readOnly: true}
{{- end }}
{{- if .v.htpasswdSecret }}
- {name: htpasswd, mountPath: /etc/entrepot/htpasswd, readOnly: true}
{{- end }}
{{- range $name, $secret := .v.secretMounts }}
- {name: secret-{{ $name }}, mountPath: /etc/entrepot/secrets/{{ $name }}, readOnly: true}
{{- end }}
{{- with .v.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The volumes of those mounts. */}}
{{- define "entrepot.volumes" -}}
- name: config
  configMap: {name: {{ include "entrepot.fullname" .root }}-{{ .role }}}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
{{- with .v.tlsSecret }}
- name: tls
  secret: {secretName: {{ . }}}
{{- end }}
{{- with .v.htpasswdSecret }}
- name: htpasswd
  secret: {secretName: {{ . }}}
{{- end }}
{{- range $name, $secret := .v.secretMounts }}
- name: secret-{{ $name }}
  secret: {secretName: {{ $secret }}}
{{- end }}
{{- with .v.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The container that fetches what a router locates clients by. Takes what entrepot.pod takes, and (list of arguments) as "more". */}}
{{- define "entrepot.geoUpdate" -}}
name: geo-update
image: {{ include "entrepot.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: [geo, update, --config, /etc/entrepot/config/entrepot.yaml{{ range .more }}, {{ . }}{{ end }}]
securityContext: {{- include "entrepot.containerSecurity" . | nindent 2 }}
{{ include "entrepot.env" . }}
resources: {{- toYaml .v.geoUpdate.resources | nindent 2 }}
volumeMounts:
  {{- include "entrepot.mounts" . | nindent 2 }}
  - {name: geo, mountPath: /var/lib/entrepot/geo}
{{- end -}}

{{/* Where it is kept. */}}
{{- define "entrepot.geoVolume" -}}
- name: geo
  {{- if .v.geoUpdate.existingClaim }}
  persistentVolumeClaim: {claimName: {{ .v.geoUpdate.existingClaim }}}
  {{- else }}
  emptyDir: {sizeLimit: 2Gi}
  {{- end }}
{{- end -}}

{{/* The pod of a role, as the template of a Deployment or StatefulSet. Takes (dict "root" $ "role" "node" "v" .Values.node). */}}
{{- define "entrepot.pod" -}}
{{- $geo := and (eq .role "router") .v.geoUpdate.enabled -}}
{{- include "entrepot.checkGrace" . -}}
metadata:
  labels: {{- include "entrepot.labels" . | nindent 4 }}
    {{- with .v.podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
  annotations:
    checksum/config: {{ include "entrepot.configChecksum" . }}
    {{- with .v.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  serviceAccountName: {{ include "entrepot.serviceAccount" .root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .v.terminationGracePeriodSeconds }}
  securityContext: {{- include "entrepot.podSecurity" . | nindent 4 }}
  {{- with .root.Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .v.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .v.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .v.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .v.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .v.topologySpread.enabled }}
  topologySpreadConstraints:
    {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - maxSkew: 1
      topologyKey: {{ $key }}
      whenUnsatisfiable: {{ $.v.topologySpread.whenUnsatisfiable }}
      labelSelector:
        matchLabels: {{- include "entrepot.selectorLabels" $ | nindent 10 }}
    {{- end }}
  {{- end }}
  {{- if and $geo (not .v.geoUpdate.existingClaim) }}
  # Beside the router for as long as that runs: what fails is tried again, and keeps nobody from starting.
  initContainers:
    - restartPolicy: Always
      {{- include "entrepot.geoUpdate" (merge (dict "more" (list "--every" .v.geoUpdate.every)) .) | nindent 6 }}
  {{- end }}
  containers:
    - name: entrepot
      image: {{ include "entrepot.image" .root }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      args: [serve, --config, /etc/entrepot/config/entrepot.yaml]
      securityContext: {{- include "entrepot.containerSecurity" . | nindent 8 }}
      {{- include "entrepot.env" . | nindent 6 }}
      ports:
        - {name: http, containerPort: {{ include "entrepot.port" .role }}, protocol: TCP}
        - {name: admin, containerPort: 9090, protocol: TCP}
      # The admin listener comes first: a large store may take its time to open.
      livenessProbe:
        httpGet: {path: /healthz, port: admin}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: admin}
        periodSeconds: 5
        timeoutSeconds: 3
        failureThreshold: 2
      startupProbe:
        httpGet: {path: /healthz, port: admin}
        periodSeconds: 2
        timeoutSeconds: 3
        failureThreshold: 30
      {{- with .v.preStopSleepSeconds }}
      lifecycle:
        preStop:
          sleep: {seconds: {{ . }}}
      {{- end }}
      resources: {{- toYaml .v.resources | nindent 8 }}
      volumeMounts:
        {{- include "entrepot.mounts" . | nindent 8 }}
        - {name: data, mountPath: /var/lib/entrepot}
        {{- if $geo }}
        - {name: geo, mountPath: /var/lib/entrepot/geo, readOnly: true}
        {{- end }}
  volumes:
    {{- include "entrepot.volumes" . | nindent 4 }}
    {{- if eq .role "router" }}
    - name: data
      emptyDir: {sizeLimit: 1Gi}
    {{- else if eq (default "StatefulSet" .v.kind) "Deployment" }}
    - name: data
      emptyDir: {sizeLimit: {{ .v.volume.size }}}
    {{- end }}
    {{- if $geo }}
    {{- include "entrepot.geoVolume" . | nindent 4 }}
    {{- end }}
{{- end -}}
