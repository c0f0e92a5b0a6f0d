// Where the gateway is, and how a program tells what came of its cases: one JSON line each.

export const URL = process.env.GATEWAY_URL;
export const KEY = process.env.GATEWAY_KEY;
export const MODEL = process.env.GATEWAY_MODEL;

/** Run those cases that the command line names, in their order there; all of them without any. */
export async function tell(cases) {
  const named = process.argv.slice(2);
  for (const name of named.length ? named : Object.keys(cases)) {
    console.log(JSON.stringify({ case: name, ...(await cases[name]()) }));
  }
}
