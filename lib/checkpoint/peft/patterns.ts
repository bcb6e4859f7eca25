/** Characters of a regular expression. */
const maxPatternLength = 4_096;
/** A repetition of a group that repeats inside can take exponential time. */
const nestedRepetition = /\([^()]*[*+}][^()]*\)\s*[*+{]/;
/** Letters behind a backslash, without those that mean the same in Python and here. */
const foreignEscape = /\\(?![dDwWsSbBnrtfv])[A-Za-z]/;

/** What is wrong with a regular expression for module paths, if anything; in Python's syntax, it means the same here. */
export function patternProblem(pattern: string): string | undefined {
  if (pattern.length > maxPatternLength) {
    return `which has more than ${maxPatternLength} characters`;
  }
  if (nestedRepetition.test(pattern)) return "which repeats a group that repeats within";
  const escape = foreignEscape.exec(pattern)?.[0];
  if (escape !== undefined) {
    return `whose ${escape} means another thing in Python; a pattern is for the whole path anyway`;
  }
  try {
    new RegExp(pattern);
    return undefined;
  } catch (error) {
    return `which is no regular expression (${error instanceof Error ? error.message : String(error)})`;
  }
}
