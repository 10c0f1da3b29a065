package registry

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRangesAreReadAsRFC9110Says(t *testing.T) {
	t.Parallel()
	const size = 1000
	many := "bytes=0-0" + strings.Repeat(",5-5", maxRanges-1)
	for _, tc := range []struct {
		header  string
		verdict rangeVerdict
		want    []byteRange
	}{
		{"bytes=0-0", rangePartial, []byteRange{{0, 1, false}}},
		{"bytes=500-999", rangePartial, []byteRange{{500, 500, false}}},
		{"bytes=500-", rangePartial, []byteRange{{500, 500, true}}},
		{"bytes=0-", rangePartial, []byteRange{{0, 1000, true}}},
		{"bytes=-1", rangePartial, []byteRange{{999, 1, false}}},
		{"bytes=-5000", rangePartial, []byteRange{{0, 1000, false}}},
		{"BYTES=1-2", rangePartial, []byteRange{{1, 2, false}}},
		{"bytes=999-1000", rangePartial, []byteRange{{999, 1, false}}}, // regctl's end is one past the blob
		{"bytes=10-99999999999999999999999", rangePartial, []byteRange{{10, 990, false}}},
		{"bytes=0-1,5-6", rangePartial, []byteRange{{0, 2, false}, {5, 2, false}}},
		{"bytes= 0-1 ,\t5-6 ,,", rangePartial, []byteRange{{0, 2, false}, {5, 2, false}}},
		{"bytes=0-1,2000-", rangePartial, []byteRange{{0, 2, false}}},

		{"bytes=1000-", rangeUnsatisfiable, nil},
		{"bytes=1000-2000", rangeUnsatisfiable, nil},
		{"bytes=99999999999999999999999-", rangeUnsatisfiable, nil},
		{"bytes=-0", rangeUnsatisfiable, nil},
		{"bytes=500-0", rangeUnsatisfiable, nil},
		{"bytes=2000-,3000-", rangeUnsatisfiable, nil},

		{"", rangeWhole, nil},
		{"bytes", rangeWhole, nil},
		{"bytes=", rangeWhole, nil},
		{"bytes=,", rangeWhole, nil},
		{"bytes=-", rangeWhole, nil},
		{"bytes=1", rangeWhole, nil},
		{"bytes=a-b", rangeWhole, nil},
		{"bytes=+1-2", rangeWhole, nil},
		{"bytes=1-2-3", rangeWhole, nil},
		{"bytes=1 -2", rangeWhole, nil},
		{"bytes=0-1,x", rangeWhole, nil},
		{"items=0-1", rangeWhole, nil},
		{"bytes =0-1", rangeWhole, nil},
		{"bytes=0-,0-", rangeWhole, nil},         // sums to more than the blob
		{"bytes=0-599,400-999", rangeWhole, nil}, // as does this
		{many + ",7-7", rangeWhole, nil},         // too many
		{"bytes=" + strings.Repeat("0-0,", 1000), rangeWhole, nil},
	} {
		got, verdict := parseRange(nil, tc.header, size)
		if verdict != tc.verdict {
			t.Errorf("%.40q: verdict %d, want %d", tc.header, verdict, tc.verdict)
		}
		if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(byteRange{})); verdict == rangePartial && diff != "" {
			t.Errorf("%.40q (-want +got):\n%s", tc.header, diff)
		}
	}
	if got, verdict := parseRange(nil, many, size); verdict != rangePartial || len(got) != maxRanges {
		t.Errorf("%d ranges: verdict %d, %d ranges", maxRanges, verdict, len(got))
	}
	if _, verdict := parseRange(nil, "bytes=0-", 0); verdict != rangeWhole {
		t.Errorf("a range of an empty blob: verdict %d, want the whole", verdict)
	}
}

func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-1", "bytes=-5,3-", "bytes=5-,", "x=1", "bytes=18446744073709551616-"} {
		f.Add(s, int64(1000))
	}
	f.Add("bytes=0-", int64(0))
	f.Fuzz(func(t *testing.T, header string, size int64) {
		ranges, verdict := parseRange(nil, header, size)
		if verdict != rangePartial {
			if len(ranges) != 0 {
				t.Fatalf("verdict %d with %d ranges", verdict, len(ranges))
			}
			return
		}
		var total int64
		for _, r := range ranges {
			if r.start < 0 || r.length <= 0 || r.start > size-r.length {
				t.Fatalf("%q of %d bytes: %+v", header, size, r)
			}
			total += r.length
		}
		if len(ranges) == 0 || len(ranges) > maxRanges || total > size {
			t.Fatalf("%q of %d bytes: %d ranges, %d bytes", header, size, len(ranges), total)
		}
	})
}
