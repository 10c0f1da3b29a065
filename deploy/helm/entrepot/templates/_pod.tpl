{{/* The pod of a role, as the template of a Deployment or StatefulSet. Takes (dict "root" $ "role" "node" "v" .Values.node). */}}
{{- define "entrepot.pod" -}}
{{- $full := include "entrepot.fullname" .root -}}
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
  containers:
    - name: entrepot
      image: {{ include "entrepot.image" .root }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      args: [serve, --config, /etc/entrepot/config/entrepot.yaml]
      securityContext: {{- include "entrepot.containerSecurity" . | nindent 8 }}
      env:
        - name: ADMIN_TOKEN
          valueFrom:
            secretKeyRef: {name: {{ include "entrepot.adminSecret" .root }}, key: token}
        {{- with .v.env }}{{ toYaml . | nindent 8 }}{{ end }}
      {{- with .v.envFrom }}
      envFrom: {{- toYaml . | nindent 8 }}
      {{- end }}
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
        - {name: config, mountPath: /etc/entrepot/config, readOnly: true}
        - {name: data, mountPath: /var/lib/entrepot}
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
        {{- with .v.extraVolumeMounts }}{{ toYaml . | nindent 8 }}{{ end }}
  volumes:
    - name: config
      configMap: {name: {{ $full }}-{{ .role }}}
    - name: tmp
      emptyDir: {sizeLimit: 1Gi}
    {{- if eq .role "router" }}
    - name: data
      emptyDir: {sizeLimit: 1Gi}
    {{- else if eq (default "StatefulSet" .v.kind) "Deployment" }}
    - name: data
      emptyDir: {sizeLimit: {{ .v.volume.size }}}
    {{- end }}
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
    {{- with .v.extraVolumes }}{{ toYaml . | nindent 4 }}{{ end }}
{{- end -}}
