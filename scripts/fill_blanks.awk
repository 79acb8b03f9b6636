# SPDX-License-Identifier: Apache-2.0
# Puts what the model generated into the blanks it was asked about. Usage: awk -f fill_blanks.awk QUESTIONS ANSWERS, line by
# line: "The <extra_id_0> sat." and "<extra_id_0> old cat <extra_id_1> ..." give "The [old cat] sat.".

FNR == NR { question[FNR] = $0; next }

{
  text = question[FNR]
  for (i = 0; (at = index(text, "<extra_id_" i ">")) > 0; i++) {
    mark = "<extra_id_" i ">"
    text = substr(text, 1, at - 1) "[" answer($0, mark) "]" substr(text, at + length(mark))
  }
  print "  " text
}

# What stands between the mark and the next one.
function answer(line, mark,    at, rest, end) {
  at = index(line, mark)
  if (!at) return "?"
  rest = substr(line, at + length(mark))
  end = index(rest, "<extra_id_")
  if (end) rest = substr(rest, 1, end - 1)
  sub(/^ +/, "", rest)
  sub(/ +$/, "", rest)
  return rest
}
