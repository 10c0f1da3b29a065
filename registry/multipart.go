package registry

import (
	"crypto/rand"
	"fmt"
)

// multipartBody is a multipart/byteranges body (RFC 9110, section 14.6). Its
// length is known before it is sent.
type multipartBody struct {
	boundary string
	heads    []string // before each part
	tail     string
	length   int64 // bytes
}

func newMultipart(ranges []byteRange, b *Blob) *multipartBody {
	mediaType := b.MediaType
	if mediaType == "" {
		mediaType = "application/octet-stream"
	}
	// Unpredictable, so that no content can hold it on purpose.
	m := &multipartBody{boundary: rand.Text()}
	m.tail = "\r\n--" + m.boundary + "--\r\n"
	m.length = int64(len(m.tail))
	lead := ""
	for _, r := range ranges {
		head := fmt.Sprintf("%s--%s\r\nContent-Type: %s\r\nContent-Range: %s\r\n\r\n",
			lead, m.boundary, mediaType, r.appendContentRange(nil, b.Size))
		m.heads = append(m.heads, head)
		m.length += int64(len(head)) + r.length
		lead = "\r\n"
	}
	return m
}

// sendMultipart sends parts of the content with what goes around them.
func (x *exchange) sendMultipart(m *multipartBody, content Content, parts []byteRange) error {
	for i, part := range parts {
		if _, err := x.body.Write([]byte(m.heads[i])); err != nil {
			return err
		}
		if err := x.sendRange(content, part); err != nil {
			return err
		}
	}
	_, err := x.body.Write([]byte(m.tail))
	return err
}
