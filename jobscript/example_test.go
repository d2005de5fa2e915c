package jobscript_test

import (
	"errors"
	"fmt"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/jobscript"
)

func ExampleParse() {
	script := []byte("#!/bin/sh\n#SWM flavor m1.small\n#SWM time 90\n#SWM output-files 'my result.csv'\n./work\n")
	request, err := jobscript.Parse(script, jobscript.Options{
		Overrides: []jobscript.Directive{{Keyword: "time", Value: "2h"}},
	})
	if err != nil {
		panic(err)
	}
	fmt.Print(jobscript.Format(request))
	// Output:
	// #SWM flavor m1.small
	// #SWM nodes 1
	// #SWM time 02:00:00
	// #SWM output-files 'my result.csv'
}

func ExampleParse_errors() {
	_, err := jobscript.Parse([]byte("#SWM flavour m1.small\n#SWM nodes none\n"), jobscript.Options{File: "job.sh"})
	var errs jobscript.Errors
	if errors.As(err, &errs) {
		for _, e := range errs {
			fmt.Printf("%s (%s)\n", e.Message, e.Hint)
		}
	}
	fmt.Println(skyport.CodeOf(err))
	// Output:
	// job.sh:1:6: unknown directive "flavour" (did you mean "flavor"?)
	// job.sh:2:12: nodes: expected a whole number from 1 to 10000, not "none" (for example: #SWM nodes 2)
	// invalid_script
}
