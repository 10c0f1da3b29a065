package charttest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/pod-security-admission/api"
	podsecurity "k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

// workload is what makes pods.
type workload struct {
	object
	pod      core.PodTemplateSpec
	selector *meta.LabelSelector // nil of a Job
	replicas *int32
	claims   []string // volumes that a StatefulSet adds
	serves   bool     // it runs until it is stopped
}

// release is everything that was rendered.
type release struct {
	objects   []object
	workloads []workload
}

func decode[T any](o object) (T, error) {
	var v T
	err := yaml.UnmarshalStrict(o.text, &v)
	return v, err
}

func readRelease(objects []object) (release, error) {
	r := release{objects: objects}
	for _, o := range objects {
		w := workload{object: o}
		var err error
		switch o.Kind {
		case "Deployment":
			var d apps.Deployment
			d, err = decode[apps.Deployment](o)
			w.pod, w.selector, w.replicas, w.serves = d.Spec.Template, d.Spec.Selector, d.Spec.Replicas, true
		case "StatefulSet":
			var s apps.StatefulSet
			s, err = decode[apps.StatefulSet](o)
			w.pod, w.selector, w.replicas, w.serves = s.Spec.Template, s.Spec.Selector, s.Spec.Replicas, true
			for _, c := range s.Spec.VolumeClaimTemplates {
				w.claims = append(w.claims, c.Name)
			}
		case "Job":
			var j batch.Job
			j, err = decode[batch.Job](o)
			w.pod = j.Spec.Template
		case "CronJob":
			var c batch.CronJob
			c, err = decode[batch.CronJob](o)
			w.pod = c.Spec.JobTemplate.Spec.Template
		default:
			continue
		}
		if err != nil {
			return r, fmt.Errorf("%v: %w", o, err)
		}
		r.workloads = append(r.workloads, w)
	}
	return r, nil
}

// violations are everything that a release does against the policies.
func (r release) violations() (all []string) {
	add := func(what fmt.Stringer, format string, args ...any) {
		all = append(all, fmt.Sprintf("%v: ", what)+fmt.Sprintf(format, args...))
	}
	for _, o := range r.objects {
		for _, label := range []string{"name", "instance", "component", "version", "managed-by", "part-of"} {
			if o.Metadata.Labels["app.kubernetes.io/"+label] == "" {
				add(o, "has no label %s", label)
			}
		}
		if len(o.Metadata.Name) > 63 {
			add(o, "has a name of %d characters", len(o.Metadata.Name))
		}
	}
	for _, w := range r.workloads {
		r.checkPod(w, add)
		r.checkAround(w, add)
	}
	return all
}

type adder func(what fmt.Stringer, format string, args ...any)

// checkPod is what a pod may and must be.
func (r release) checkPod(w workload, add adder) {
	spec := &w.pod.Spec
	evaluator, err := podsecurity.NewEvaluator(podsecurity.DefaultChecks(), nil)
	if err != nil {
		add(w, "%v", err)
		return
	}
	restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	if verdict := podsecurity.AggregateCheckResults(evaluator.EvaluatePod(restricted, &w.pod.ObjectMeta, spec)); !verdict.Allowed {
		add(w, "the pod security standard forbids it: %s", verdict.ForbiddenDetail())
	}
	if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		add(w, "mounts the token of its service account")
	}
	if spec.SecurityContext == nil || spec.SecurityContext.RunAsUser == nil || *spec.SecurityContext.RunAsUser == 0 {
		add(w, "does not say which user it runs as")
	}
	for i, c := range slices.Concat(spec.Containers, spec.InitContainers) {
		serves := w.serves && i < len(spec.Containers)
		if c.SecurityContext == nil || c.SecurityContext.ReadOnlyRootFilesystem == nil || !*c.SecurityContext.ReadOnlyRootFilesystem {
			add(w, "container %s can write to its root file system", c.Name)
		}
		if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
			add(w, "container %s lacks requests of processor and memory, or a limit of memory", c.Name)
		}
		_, tag, tagged := strings.Cut(c.Image[strings.LastIndexByte(c.Image, '/')+1:], ":")
		if !tagged || tag == "latest" {
			add(w, "container %s has the image %s, without tag and digest", c.Name, c.Image)
		}
		if serves && (c.LivenessProbe == nil || c.ReadinessProbe == nil || c.StartupProbe == nil) {
			add(w, "container %s lacks a probe", c.Name)
		}
		r.checkReferences(w, c, add)
	}
}

// checkReferences holds what a container names to what there is. Secrets are the
// operator's, but for the chart's own.
func (r release) checkReferences(w workload, c core.Container, add adder) {
	volumes := slices.Clone(w.claims)
	for _, v := range w.pod.Spec.Volumes {
		volumes = append(volumes, v.Name)
		if v.ConfigMap != nil && strings.HasPrefix(v.ConfigMap.Name, "release-") && !r.has("ConfigMap", v.ConfigMap.Name) {
			add(w, "mounts the ConfigMap %s, which is not there", v.ConfigMap.Name)
		}
		if v.EmptyDir != nil && v.EmptyDir.SizeLimit == nil {
			add(w, "has the volume %s without a limit", v.Name)
		}
	}
	for _, m := range c.VolumeMounts {
		if !slices.Contains(volumes, m.Name) {
			add(w, "mounts %s, which is no volume", m.Name)
		}
	}
	for _, e := range c.Env {
		if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil && strings.HasPrefix(e.ValueFrom.SecretKeyRef.Name, "release-") && !r.has("Secret", e.ValueFrom.SecretKeyRef.Name) {
			add(w, "takes %s from the Secret %s, which is not there", e.Name, e.ValueFrom.SecretKeyRef.Name)
		}
	}
	for _, probe := range []*core.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		if probe != nil && !hasPort(c, probe.HTTPGet.Port.StrVal) {
			add(w, "probes the port %s, which container %s does not have", probe.HTTPGet.Port.StrVal, c.Name)
		}
	}
	if account := w.pod.Spec.ServiceAccountName; account != "default" && !r.has("ServiceAccount", account) {
		add(w, "runs as the service account %s, which is not there", account)
	}
}

func hasPort(c core.Container, name string) bool {
	return slices.ContainsFunc(c.Ports, func(p core.ContainerPort) bool { return p.Name == name })
}

func (r release) has(kind, name string) bool {
	return slices.ContainsFunc(r.objects, func(o object) bool { return o.Kind == kind && o.Metadata.Name == name })
}

// selected are the labels of a workload's pods under a selector.
func selected(s *meta.LabelSelector, pod core.PodTemplateSpec) bool {
	selector, err := meta.LabelSelectorAsSelector(s)
	return err == nil && !selector.Empty() && selector.Matches(labels.Set(pod.Labels))
}

// checkAround is what a workload needs around it: selectors that find its pods and
// nobody else's.
func (r release) checkAround(w workload, add adder) {
	if w.selector != nil && !selected(w.selector, w.pod) {
		add(w, "does not select its own pods")
	}
	var budgets, policies, services, scalers int
	for _, o := range r.objects {
		switch o.Kind {
		case "PodDisruptionBudget":
			if b, err := decode[policy.PodDisruptionBudget](o); err == nil && selected(b.Spec.Selector, w.pod) {
				budgets++
			}
		case "NetworkPolicy":
			p, err := decode[networking.NetworkPolicy](o)
			if err == nil && selected(&p.Spec.PodSelector, w.pod) && slices.Contains(p.Spec.PolicyTypes, "Ingress") && slices.Contains(p.Spec.PolicyTypes, "Egress") {
				policies++
			}
		case "Service":
			s, err := decode[core.Service](o)
			if err == nil && labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(w.pod.Labels)) {
				services++
				for _, p := range s.Spec.Ports {
					if !hasPort(w.pod.Spec.Containers[0], p.TargetPort.StrVal) {
						add(o, "leads to the port %s, which %v does not have", p.TargetPort.StrVal, w)
					}
				}
				if s.Spec.Type != core.ServiceTypeClusterIP && slices.ContainsFunc(s.Spec.Ports, func(p core.ServicePort) bool { return p.Name == "admin" }) {
					add(o, "publishes the admin listener")
				}
			}
		case "HorizontalPodAutoscaler":
			h, err := decode[autoscaling.HorizontalPodAutoscaler](o)
			if err == nil && h.Spec.ScaleTargetRef.Kind == w.Kind && h.Spec.ScaleTargetRef.Name == w.Metadata.Name {
				scalers++
			}
		}
	}
	if policies != 1 {
		add(w, "is under %d network policies", policies)
	}
	if w.serves && budgets != 1 {
		add(w, "has %d disruption budgets", budgets)
	}
	if w.serves && services != 2 || !w.serves && services != 0 {
		add(w, "is behind %d services", services)
	}
	if w.serves && (scalers == 1) != (w.replicas == nil) {
		add(w, "has %d autoscalers and says replicas: %v", scalers, w.replicas != nil)
	}
}

func TestEachExampleKeepsThePolicies(t *testing.T) {
	for name, args := range examples(t) {
		t.Run(name, func(t *testing.T) {
			r, err := readRelease(render(t, args...))
			if err != nil {
				t.Fatal(err)
			}
			if len(r.workloads) == 0 {
				t.Error("it has no workload")
			}
			for _, v := range r.violations() {
				t.Error(v)
			}
		})
	}
}

// Policies are worth something only if they find what is wrong.
func TestPoliciesFindWhatIsWrong(t *testing.T) {
	system := []string{"--values", chart + "/examples/whole-system.yaml"}
	promotion := []string{"--values", chart + "/examples/origin-and-promotion.yaml"}
	for want, c := range map[string]struct {
		base []string
		sets []string
	}{
		"the pod security standard forbids it":                 {promotion, []string{"promotion.initContainers[0].name=git,promotion.initContainers[0].image=git:1"}},
		"container git can write to its root file system":      {promotion, []string{"promotion.initContainers[0].name=git,promotion.initContainers[0].image=git:1"}},
		"container git lacks requests of processor and memory": {promotion, []string{"promotion.initContainers[0].name=git,promotion.initContainers[0].image=git:1"}},
		"without tag and digest":                               {system, []string{"image.tag=latest"}},
		"lacks requests of processor and memory":               {system, []string{"node.resources.limits=null"}},
		"has 0 disruption budgets":                             {system, []string{"router.podDisruptionBudget.enabled=false"}},
		"is under 0 network policies":                          {system, []string{"origin.networkPolicy.enabled=false"}},
		"mounts nowhere, which is no volume":                   {system, []string{"node.extraVolumeMounts[0].name=nowhere,node.extraVolumeMounts[0].mountPath=/x"}},
		"has the volume big without a limit":                   {system, []string{"node.extraVolumes[0].name=big,node.extraVolumes[0].emptyDir.medium=Memory"}},
		"which is not there":                                   {system, []string{"serviceAccount.create=false,serviceAccount.name=other"}},
	} {
		t.Run(want, func(t *testing.T) {
			args := slices.Clone(c.base)
			for _, set := range c.sets {
				args = append(args, "--set", set)
			}
			r, err := readRelease(render(t, args...))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(r.violations(), func(v string) bool { return strings.Contains(v, want) }) {
				t.Errorf("found only %q", r.violations())
			}
		})
	}
}

// Nothing routes to what is not there.
func TestRoutesLeadToServices(t *testing.T) {
	routes := 0
	for name, args := range examples(t) {
		objects := render(t, args...)
		ports := map[string][]string{} // of services
		for _, o := range objects {
			if o.Kind != "Service" {
				continue
			}
			s, err := decode[core.Service](o)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range s.Spec.Ports {
				ports[s.Name] = append(ports[s.Name], p.Name, fmt.Sprint(p.Port))
			}
		}
		for _, o := range objects {
			for _, backend := range backends(t, o) {
				routes++
				if service, port, _ := strings.Cut(backend, ":"); !slices.Contains(ports[service], port) {
					t.Errorf("%s: %v leads to %s; there are %v", name, o, backend, slices.Sorted(maps.Keys(ports)))
				}
			}
		}
	}
	if routes < 5 {
		t.Errorf("the examples have %d routes", routes)
	}
}

// backends are where an Ingress or HTTPRoute leads, as service:port.
func backends(t *testing.T, o object) (all []string) {
	t.Helper()
	var v struct {
		Spec struct {
			Rules []struct {
				HTTP struct {
					Paths []struct{ Backend networking.IngressBackend }
				}
				BackendRefs []struct {
					Name string
					Port int
				}
			}
		}
	}
	if o.Kind != "Ingress" && o.Kind != "HTTPRoute" {
		return nil
	}
	if err := yaml.Unmarshal(o.text, &v); err != nil {
		t.Fatal(err)
	}
	for _, rule := range v.Spec.Rules {
		for _, p := range rule.HTTP.Paths {
			all = append(all, p.Backend.Service.Name+":"+p.Backend.Service.Port.Name)
		}
		for _, b := range rule.BackendRefs {
			all = append(all, fmt.Sprintf("%s:%d", b.Name, b.Port))
		}
	}
	return all
}
