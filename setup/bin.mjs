#!/usr/bin/env node
// The command `appservice-router`: prepares what is missing, then runs the router's command line in the user's folder.
import { runCommand } from './commands.mjs';

const args = process.argv.slice(2);
process.exitCode = await runCommand('start', args.length === 0 ? ['--help'] : args);
