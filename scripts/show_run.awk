# SPDX-License-Identifier: Apache-2.0
# Draws a run's metrics.jsonl in the terminal: the loss curve (* training, o held out), the held-out loss before and after,
# and the share of tokens that each expert receives. Usage: awk -v unigram_entropy=6.1 -f show_run.awk metrics.jsonl

function value(line, key,    rest) {
  if (!match(line, "\"" key "\": ?-?[0-9.eE+-]+")) return ""
  rest = substr(line, RSTART, RLENGTH)
  sub(/^[^:]*: ?/, "", rest)
  return rest + 0
}

# The numbers of "key": [a, b, ...] into list; returns how many.
function numbers(line, key, list,    start, rest) {
  start = index(line, "\"" key "\"")
  if (!start) return 0
  rest = substr(line, start)
  sub(/^[^[]*\[/, "", rest)
  sub(/\].*/, "", rest)
  return split(rest, list, /, */)
}

/"split":/ {
  if (value($0, "loss") == "") next
  held++
  held_step[held] = value($0, "step")
  held_loss[held] = value($0, "loss")
  last_evaluation = $0
  next
}

/"total_loss":/ {
  points++
  step[points] = value($0, "step")
  loss[points] = value($0, "loss")
  dropped = value($0, "dropped_fraction")
  speed_sum += value($0, "tokens_per_second")
}

END {
  if (!points) { print "no steps were logged"; exit 1 }
  width = 72; height = 14
  low = 1e9; high = -1e9; end = step[points]
  for (i = 1; i <= points; i++) { if (loss[i] < low) low = loss[i]; if (loss[i] > high) high = loss[i] }
  for (i = 1; i <= held; i++) { if (held_loss[i] < low) low = held_loss[i]; if (held_loss[i] > high) high = held_loss[i] }
  if (high <= low) high = low + 1
  for (i = 1; i <= points; i++) plot(step[i], loss[i], "*")
  for (i = 1; i <= held; i++) plot(held_step[i], held_loss[i], "o")
  print "loss, nats per target token (* training, o held out)"
  for (row = 0; row < height; row++) {
    printf "%7.3f |", high - (high - low) * row / (height - 1)
    for (column = 0; column < width; column++) printf "%s", (row, column) in cell ? cell[row, column] : " "
    printf "\n"
  }
  printf "        +"
  for (column = 0; column < width; column++) printf "-"
  printf "\n         step 0%" (width - 6) "s\n\n", "step " end
  if (held) {
    printf "held-out loss: %.3f before, %.3f after %d steps", held_loss[1], held_loss[held], held_step[held]
    if (unigram_entropy > 0)
      printf "; guessing by word frequency alone would give %.3f", unigram_entropy
    printf "\n"
  }
  printf "speed: %.0f tokens/s on average", speed_sum / points
  if (dropped != "") printf "; tokens dropped by full experts: %.2f %%", 100 * dropped
  printf "\n"
  experts(last_evaluation)
}

function plot(x, y, mark,    column, row) {
  column = end > 0 ? int((width - 1) * x / end + 0.5) : 0
  row = int((height - 1) * (high - y) / (high - low) + 0.5)
  if (column >= width) column = width - 1
  cell[row, column] = mark
}

# One line a sparse layer: the share of held-out tokens per expert, as bars between 0 and the largest share.
function experts(line,    count, name, rest, list, i, most, bars, glyph) {
  split("▁ ▂ ▃ ▄ ▅ ▆ ▇ █", bars, " ")
  rest = line
  while (match(rest, /"expert_load\/[^"]*"/)) {
    name = substr(rest, RSTART + 1, RLENGTH - 2)
    rest = substr(rest, RSTART + RLENGTH)
    count = numbers(line, name, list)
    if (!shown++) printf "\nload of the experts on held-out text, by sparse layer (even would be %.1f %%)\n", 100 / count
    printf "  %-20s ", substr(name, 13)
    most = 0
    for (i = 1; i <= count; i++) if (list[i] + 0 > most) most = list[i] + 0
    for (i = 1; i <= count; i++) {
      glyph = int(8 * list[i] / (most > 0 ? most : 1) + 0.5)
      printf "%s%5.1f %%", bars[glyph < 1 ? 1 : glyph], 100 * list[i]
      printf i < count ? "  " : "\n"
    }
  }
}
