/** What setup/commands.mjs runs for `npm run bench`. */
import './main.ts';
