/** Where a command writes. */
export interface Terminal {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
  /** People read the standard output. */
  readonly isInteractive: boolean;
  /** Colours are wanted: a terminal, and NO_COLOR not set. */
  readonly hasColour: boolean;
  readonly columns: number;
}

/** What commands end with. */
export const EXIT = { ok: 0, refused: 1, usage: 2, unreachable: 3, unauthorised: 4, problems: 5 } as const;
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

const COLOURS = { red: 31, green: 32, yellow: 33, dim: 2, bold: 1 } as const;
export type Colour = keyof typeof COLOURS;

export function coloured(terminal: Pick<Terminal, 'hasColour'>, colour: Colour, text: string): string {
  return terminal.hasColour ? `\u001b[${COLOURS[colour]}m${text}\u001b[0m` : text;
}

/** Text from elsewhere as one line that moves no cursor and sets no colour. */
export function plainLine(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ');
}
