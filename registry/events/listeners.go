package events

import (
	"net/url"
	"strings"

	"entrepot/registry"
	"entrepot/registry/filestore"
	"entrepot/registry/origin"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Registry tells of what happens to repositories.
func (s *Sender) Registry() origin.Listener { return repositories{s} }

// Files tells of what happens to files.
func (s *Sender) Files() filestore.Listener { return files{s} }

type repositories struct{ *Sender }

// Pushed implements [origin.Listener].
func (s repositories) Pushed(e origin.Event) {
	action := ActionPush
	if e.Mounted {
		action = ActionMount
	}
	event := s.event(action, &e)
	if base := strings.TrimSuffix(s.cfg.RegistryURL, "/"); base != "" {
		kind := "manifests"
		if e.Descriptor.MediaType == octetStream {
			kind = "blobs"
		}
		event.Target.URL = base + "/v2/" + e.Repository + "/" + kind + "/" + string(e.Descriptor.Digest)
	}
	s.Send(event)
}

// Deleted implements [origin.Listener].
func (s repositories) Deleted(e origin.Event) { s.Send(s.event(ActionDelete, &e)) }

// octetStream is the media type of blobs.
const octetStream = "application/octet-stream"

func (s repositories) event(action string, e *origin.Event) *Event {
	event := newEvent(action, e.Descriptor, &e.Caller)
	event.Target.Repository, event.Target.FromRepository, event.Target.Tag = e.Repository, e.From, e.Tag
	return event
}

type files struct{ *Sender }

// Pushed implements [filestore.Listener].
func (s files) Pushed(e filestore.Event) {
	event := s.event(ActionPush, &e)
	if base := strings.TrimSuffix(s.cfg.FilesURL, "/"); base != "" {
		event.Target.URL = base + "/" + escapePath(e.Path)
	}
	s.Send(event)
}

// Deleted implements [filestore.Listener].
func (s files) Deleted(e filestore.Event) { s.Send(s.event(ActionDelete, &e)) }

func (s files) event(action string, e *filestore.Event) *Event {
	return newEvent(action, ocispec.Descriptor{
		MediaType: e.ContentType, Digest: e.Digest, Size: e.Size,
		Annotations: map[string]string{ocispec.AnnotationTitle: e.Path},
	}, &e.Caller)
}

func newEvent(action string, d ocispec.Descriptor, caller *registry.Caller) *Event {
	return &Event{
		Action: action,
		Target: Target{Descriptor: d, Length: d.Size},
		Request: Request{
			ID: caller.RequestID, Addr: caller.Address, Host: caller.Host, Method: caller.Method, UserAgent: caller.UserAgent,
		},
		Actor: Actor{Name: caller.Identity},
	}
}

// escapePath is a path as it is written in a URL.
func escapePath(path string) string {
	elements := strings.Split(path, "/")
	for i := range elements {
		elements[i] = url.PathEscape(elements[i])
	}
	return strings.Join(elements, "/")
}
