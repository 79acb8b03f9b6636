// SPDX-License-Identifier: Apache-2.0
#include "lib/data/vocabulary.h"

#include <charconv>

#include <sentencepiece_processor.h>

#include "lib/base/checksum.h"
#include "lib/base/error.h"

namespace stmoe {
namespace {

constexpr std::string_view kSentinelPrefix = "<extra_id_";
constexpr std::string_view kSpaceMark = "\xe2\x96\x81";  // U+2581, how SentencePiece writes a blank
constexpr std::string_view kBlanks = " \t\r\n";
constexpr size_t kLongestPart = 1 << 20;
constexpr std::string_view kUnknownMark = "\xee\x80\x80";  // U+E000, private use: in no vocabulary

bool is_blank(char c) { return kBlanks.find(c) != std::string_view::npos; }

std::string sentinel_text(int number) { return format("{}{}>", kSentinelPrefix, number); }

// Reads "<extra_id_N>" at the front of `text`; returns its length and sets `number`, or returns 0.
size_t parse_sentinel(std::string_view text, int& number) {
  if (!text.starts_with(kSentinelPrefix)) return 0;
  const char* first = text.data() + kSentinelPrefix.size();
  const char* last = text.data() + text.size();
  if (first == last || *first < '0' || *first > '9') return 0;
  auto [end, error] = std::from_chars(first, last, number);
  if (error != std::errc() || end == last || *end != '>' || number >= kNumSentinels) return 0;
  return static_cast<size_t>(end + 1 - text.data());
}

}  // namespace

class Vocabulary::Impl {
 public:
  sentencepiece::SentencePieceProcessor processor;
  std::string hash, name;

  // SentencePiece needs about 80 bytes of memory a byte of text, so a very long text goes in parts
  // that end at blanks: pieces do not reach over a blank.
  void append_ids(std::string_view text, std::vector<int32_t>& ids) const {
    while (text.size() > kLongestPart) {
      size_t cut = text.find_last_of(kBlanks, kLongestPart);
      if (cut == std::string_view::npos || cut == 0)
        cut = text.find_first_of(kBlanks, kLongestPart);
      if (cut == std::string_view::npos) break;
      append_part(text.substr(0, cut), ids);
      text.remove_prefix(cut);
    }
    append_part(text, ids);
  }

  void append_part(std::string_view text, std::vector<int32_t>& ids) const {
    static_assert(std::is_same_v<int, int32_t>);
    std::vector<int> part;
    const auto status = processor.Encode(text, &part);
    STMOE_CHECK(status.ok(), "vocabulary: {}", status.error_message());
    if (ids.empty())
      ids = std::move(part);
    else
      ids.insert(ids.end(), part.begin(), part.end());
  }

  // As append_ids, for text that goes on without a blank, so that its first piece is "." and not
  // "▁.": SentencePiece puts a blank before every text, so a character that is in no piece stands
  // in front and is taken off again.
  void append_ids_without_blank(std::string_view text, std::vector<int32_t>& ids) const {
    const std::string marked = std::string(kUnknownMark) + std::string(text);
    std::vector<int> part;
    std::vector<std::string> pieces;
    STMOE_CHECK(processor.Encode(marked, &part).ok() && processor.Encode(marked, &pieces).ok());
    size_t i = 0;
    while (i < part.size() && pieces[i].find(kUnknownMark) == std::string::npos) ++i;
    STMOE_CHECK(i < part.size(), "vocabulary: the mark before '{}' was lost", text);
    // Unknown characters after the mark were joined with it.
    if (pieces[i].ends_with(kUnknownMark)) ++i;
    ids.insert(ids.end(), part.begin() + static_cast<std::ptrdiff_t>(i), part.end());
  }

  // Text of a run of ordinary ids inside a longer text: unlike SentencePiece alone, keeps the blank
  // before the first word.
  void append_text(std::vector<int>& run, std::string& text) const {
    if (run.empty()) return;
    std::string part;
    const auto status = processor.Decode(run, &part);
    STMOE_CHECK(status.ok(), "vocabulary: {}", status.error_message());
    if (!text.empty() && processor.IdToPiece(run.front()).starts_with(kSpaceMark)) text += ' ';
    text += part;
    run.clear();
  }
};

Vocabulary Vocabulary::load(const Path& model) {
  std::error_code code;
  if (!std::filesystem::exists(model, code))
    throw InputError(
        format("{}: the vocabulary does not exist; expected a SentencePiece model such as T5's "
               "spiece.model, or one trained by stmoe-data vocabulary",
               model.string()));
  const std::string bytes = read_file(model);
  auto impl = std::make_shared<Impl>();
  const auto status = impl->processor.LoadFromSerializedProto(bytes);
  if (!status.ok())
    throw InputError(format("{}: not a SentencePiece model, or a truncated one ({} bytes)",
                            model.string(), bytes.size()));
  const auto& processor = impl->processor;
  if (processor.pad_id() != kPadId || processor.eos_id() != kEosId || processor.unk_id() != kUnkId)
    throw InputError(
        format("{}: the vocabulary has pad {}, eos {}, unk {} (-1: none), expected T5's pad {}, "
               "eos {}, unk {}; train one with stmoe-data vocabulary",
               model.string(), processor.pad_id(), processor.eos_id(), processor.unk_id(), kPadId,
               kEosId, kUnkId));
  impl->hash = hash128(bytes).text();
  impl->name = model.filename().string();
  return Vocabulary(std::move(impl));
}

std::vector<int32_t> Vocabulary::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  impl_->append_ids(text, ids);
  return ids;
}

std::vector<int32_t> Vocabulary::encode_with_sentinels(std::string_view text) const {
  std::vector<int32_t> ids;
  auto append_part = [&](std::string_view part, bool after_sentinel) {
    if (part.empty()) return;
    if (after_sentinel && !is_blank(part.front()))
      impl_->append_ids_without_blank(part, ids);
    else
      impl_->append_ids(part, ids);
  };
  size_t begin = 0;
  for (size_t at = text.find('<'); at != std::string_view::npos; at = text.find('<', at)) {
    int number = 0;
    const size_t length = parse_sentinel(text.substr(at), number);
    if (length == 0) {
      ++at;
      continue;
    }
    append_part(text.substr(begin, at - begin), begin > 0);
    ids.push_back(sentinel(number));
    begin = at += length;
  }
  append_part(text.substr(begin), begin > 0);
  return ids;
}

std::string Vocabulary::decode(std::span<const int32_t> ids) const {
  std::string text;
  std::vector<int> run;
  for (int32_t id : ids) {
    const int number = sentinel_number(id);
    if (number < 0) {
      run.push_back(id >= 0 && id < num_pieces() ? id : kUnkId);
      continue;
    }
    impl_->append_text(run, text);
    if (!text.empty()) text += ' ';
    text += sentinel_text(number);
  }
  impl_->append_text(run, text);
  return text;
}

std::string Vocabulary::piece(int32_t id) const {
  const int number = sentinel_number(id);
  if (number >= 0) return sentinel_text(number);
  if (id < 0 || id >= num_pieces()) return format("<{}>", id);
  return impl_->processor.IdToPiece(id);
}

int64_t Vocabulary::num_pieces() const { return impl_->processor.GetPieceSize(); }

int32_t Vocabulary::sentinel(int i) const {
  STMOE_CHECK(i >= 0 && i < kNumSentinels, "vocabulary: sentinel {} of {}", i, kNumSentinels);
  return static_cast<int32_t>(size() - 1 - i);
}

int Vocabulary::sentinel_number(int32_t id) const {
  return id >= num_pieces() && id < size() ? static_cast<int>(size() - 1 - id) : -1;
}

const std::string& Vocabulary::hash() const { return impl_->hash; }
const std::string& Vocabulary::name() const { return impl_->name; }

}  // namespace stmoe
