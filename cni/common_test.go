package cni_test

import (
	"testing"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/memo"
)

// seen counts how often each text is decoded.
type seen map[string]int

type configText string

func (s seen) decode(config []byte) (configText, error) {
	s[string(config)]++
	return configText(config), nil
}

func TestDecodeRemembers(t *testing.T) {
	common := cni.Common{Text: `{"name":"a"}`, Memory: new(memo.Memory)}
	for name, test := range map[string]struct {
		req     cni.Request
		decode  func(*cni.Request, func([]byte) (configText, error)) (configText, error)
		want    configText
		decoded int // of two times
	}{
		"the same":                       {cni.Request{Config: []byte(common.Text), Common: common}, cni.Decode[configText], configText(common.Text), 1},
		"the same, of the common part":   {cni.Request{Config: []byte(common.Text), Common: common}, cni.DecodeCommon[configText], configText(common.Text), 1},
		"more":                           {cni.Request{Config: []byte(`{"name":"a","prevResult":{}}`), Common: common}, cni.Decode[configText], `{"name":"a","prevResult":{}}`, 2},
		"more, of the common part":       {cni.Request{Config: []byte(`{"name":"a","prevResult":{}}`), Common: common}, cni.DecodeCommon[configText], configText(common.Text), 1},
		"nothing known":                  {cni.Request{Config: []byte(common.Text)}, cni.Decode[configText], configText(common.Text), 2},
		"nothing known, common part":     {cni.Request{Config: []byte(common.Text)}, cni.DecodeCommon[configText], configText(common.Text), 2},
		"nothing remembered":             {cni.Request{Config: []byte(common.Text), Common: cni.Common{Text: common.Text}}, cni.Decode[configText], configText(common.Text), 2},
		"another one, of the same begin": {cni.Request{Config: []byte(`{"name":"a"1}`), Common: common}, cni.DecodeCommon[configText], `{"name":"a"1}`, 2},
		"another one":                    {cni.Request{Config: []byte(`{"name":"b","x":1}`), Common: common}, cni.DecodeCommon[configText], `{"name":"b","x":1}`, 2},
		"a shorter one":                  {cni.Request{Config: []byte(`{"name":"a"`), Common: common}, cni.DecodeCommon[configText], `{"name":"a"`, 2},
	} {
		t.Run(name, func(t *testing.T) {
			if test.req.Common.Memory != nil {
				test.req.Common.Memory = new(memo.Memory)
			}
			s := seen{}
			for range 2 {
				if got, err := test.decode(&test.req, s.decode); err != nil || got != test.want {
					t.Errorf("got %s, %v, want %s", got, err, test.want)
				}
			}
			if s[string(test.want)] != test.decoded || len(s) != 1 {
				t.Errorf("decoded: %v, want it %d times", s, test.decoded)
			}
		})
	}
}

func TestPrevResultOfRequest(t *testing.T) {
	common := cni.Common{Text: `{"cniVersion":"1.0.0","name":"a"}`}
	if prev, err := (&cni.Request{Config: []byte(common.Text), Common: common}).PrevResult(); prev != nil || err != nil {
		t.Errorf("got %v, %v", prev, err)
	}
	for _, known := range []cni.Common{{}, common} {
		req := &cni.Request{Config: []byte(`{"cniVersion":"1.0.0","name":"a","prevResult":{"cniVersion":"1.0.0"}}`), Common: known}
		if prev, err := req.PrevResult(); prev == nil || err != nil {
			t.Errorf("got %v, %v", prev, err)
		}
	}
}
