package main

import (
	"fmt"
	"time"
)

// StoreConfig is where content is kept: Dir, or S3 with Cache in front.
type StoreConfig struct {
	// directory for everything
	Dir Path `yaml:"dir"`
	// most bytes of blobs in the directory; 0 is no limit. The least recently used leave first, also when the disk is
	// full before. It has to exceed the largest blob: a larger one is passed on and not stored
	MaxSize Size `yaml:"max_size"`
	// of `max_size` (or `cache.max_size`): eviction begins here
	HighWatermark Percent `yaml:"high_watermark"`
	// and ends here
	LowWatermark Percent     `yaml:"low_watermark"`
	Scrub        ScrubConfig `yaml:"scrub"`
	// also hash blobs while they are sent: nobody then gets a whole blob that the disk has changed. It costs the
	// processor time of hashing and of not having the kernel send the file (about a second for each 1 to 2 GB), and a
	// range waits until its blob was read whole, once in ten minutes. Manifests and blobs of up to 256 KiB are
	// verified whenever they are read from the disk, whatever this says
	VerifyReads bool `yaml:"verify_reads"`
	// records kept of each kind of name: tags, manifests, lists of tags, referrers, files, files asked for with a
	// query, and which repositories hold what where an upstream is private. Those used least lately are forgotten first, never manifests of an upstream with a ledger; a name that is
	// forgotten is asked for upstream again. A record takes 4 KiB of disk, which `max_size` does not count.
	// `entrepot_store_records` tells how many there are. In a bucket are as many for
	// each upstream, those of names that this node knows besides, and what was written since they were counted; those
	// written first leave, and nodes that have them keep them
	MaxNames int          `yaml:"max_names"`
	S3       *S3Config    `yaml:"s3"`
	Cache    *CacheConfig `yaml:"cache"`
}

// ScrubConfig is how the directory is read through for what has rotted.
type ScrubConfig struct {
	// every blob in the directory is read now and then, so many bytes a second, to find what the disk has changed
	// (opening a blob counts as 64 KiB). What is wrong is moved to `quarantine/` in the directory, up to 1 GiB or a
	// tenth of the size limit, and fetched again when somebody wants it. After a restart it goes on where it was. 0
	// turns it off
	Rate Rate `yaml:"rate"`
	// from the beginning of one reading to that of the next
	Every Duration `yaml:"every"`
}

// S3Config is a bucket.
type S3Config struct {
	// of the S3 service
	Endpoint URL `yaml:"endpoint"`
	// which must exist
	Bucket string `yaml:"bucket"`
	// put before every object's name
	Prefix string `yaml:"prefix"`
	// of the bucket
	Region string `yaml:"region"`
	// with `secret_key`; without both, the environment and the machine's role are asked
	AccessKey Secret `yaml:"access_key"`
	// see `access_key`
	SecretKey Secret `yaml:"secret_key"`
	// of multipart uploads. A node that dies in the middle of one leaves its parts in the bucket: give the bucket a
	// lifecycle rule that aborts incomplete multipart uploads after a day
	PartSize Size `yaml:"part_size"`
	// send clients to the bucket with a presigned URL, instead of sending the blob
	Redirect bool `yaml:"redirect"`
	// how long such a URL works
	RedirectExpiry Duration `yaml:"redirect_expiry"`
}

// CacheConfig is the directory in front of a bucket.
type CacheConfig struct {
	// directory in front of the bucket: blobs on their way, and those used lately
	Dir Path `yaml:"dir"`
	// most bytes of blobs in it; 0 is no limit. It has to exceed the largest blob: a larger one is passed on, and
	// reaches neither this directory nor the bucket
	MaxSize Size `yaml:"max_size"`
}

// SetDefaults sets the defaults of a store.
func (s *StoreConfig) SetDefaults() {
	s.HighWatermark, s.LowWatermark = 90, 70
	s.MaxNames = 250_000
	s.Scrub.SetDefaults()
}

// SetDefaults sets the defaults of scrubbing.
func (s *ScrubConfig) SetDefaults() { s.Rate, s.Every = 8<<20, Duration(week) }

// SetDefaults sets the defaults of the directory in front of a bucket.
func (c *CacheConfig) SetDefaults() { c.Dir, c.MaxSize = "data", 10<<30 }

// SetDefaults sets the defaults of a bucket.
func (s *S3Config) SetDefaults() {
	s.Region = "us-east-1"
	s.PartSize = 16 << 20
	s.RedirectExpiry = Duration(15 * time.Minute)
}

// String says where content is kept.
func (s StoreConfig) String() string {
	limited := func(dir Path, size Size) string {
		if size == 0 {
			return string(dir)
		}
		return fmt.Sprintf("%s (up to %v)", dir, size)
	}
	if s.S3 == nil {
		return limited(s.Dir, s.MaxSize)
	}
	return fmt.Sprintf("bucket %s at %s behind %s", s.S3.Bucket, s.S3.Endpoint, limited(s.Cache.Dir, s.Cache.MaxSize))
}
