package main

import "testing"

func TestTheDemoShowsWhatItPromises(t *testing.T) { demonstrate(t, true) }
