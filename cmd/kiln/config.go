package main

import (
	"fmt"
	"os"

	"github.com/kilndb/kiln/node"
)

// configCommands are `kiln config ...`.
type configCommands struct {
	Check configCheckCommand `cmd:"" help:"Say what is wrong with a configuration: exit code 1 if anything is."`
}

// configCheckCommand is `kiln config check`.
type configCheckCommand struct {
	LimitsFile string `required:"" help:"The file that a server is given as --limits-file." placeholder:"FILE"`
}

// Run reads what a server would.
func (c *configCheckCommand) Run(out output) error {
	text, err := os.ReadFile(c.LimitsFile)
	if err != nil {
		return err
	}
	if err := node.CheckLimitsFile(text); err != nil {
		return fmt.Errorf("%s:\n%w", c.LimitsFile, err)
	}
	_, err = fmt.Fprintf(out, "%s is good\n", c.LimitsFile)
	return err
}
