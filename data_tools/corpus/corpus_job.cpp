// SPDX-License-Identifier: Apache-2.0
#include "data_tools/corpus/corpus_job.h"

#include <algorithm>
#include <utility>

#include "data_tools/corpus/hash_set.h"
#include "data_tools/corpus/ordered_pipeline.h"
#include "data_tools/corpus/part.h"
#include "data_tools/corpus/tokenizer.h"
#include "data_tools/corpus/work_folder.h"
#include "data_tools/progress.h"
#include "lib/base/clock.h"
#include "lib/base/error.h"
#include "lib/base/log.h"
#include "lib/data/corpus.h"

namespace stmoe {
namespace {

// Blocks of the files one after the other; an empty block, marked as the last, ends each file.
struct InputBlock {
  size_t file = 0;
  TextBlock block;
  bool is_last = false;
};
struct OutputBlock {
  size_t file = 0;
  bool is_last = false;
  uint64_t file_position = 0;
  TokenizedBlock tokenized;
};

class InputReader {
 public:
  InputReader(std::vector<Path> files, const InputSettings& settings)
      : files_(std::move(files)), settings_(settings) {}

  std::optional<InputBlock> next() {
    if (file_ == files_.size()) return std::nullopt;
    if (!reader_) reader_.emplace(files_[file_], settings_.document_end(files_[file_]));
    InputBlock result;
    result.file = file_;
    if (!reader_->next(result.block)) {
      result.is_last = true;
      reader_.reset();
      ++file_;
    }
    return result;
  }

 private:
  std::vector<Path> files_;
  const InputSettings& settings_;
  size_t file_ = 0;
  std::optional<BlockReader> reader_;
};

std::vector<std::string> read_bad_words(const Path& path) {
  const std::string text = read_file(path);
  std::vector<std::string> words;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    words.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

class CorpusRun {
 public:
  CorpusRun(const CorpusJob& job, const StopRequest& stop)
      : job_(job), stop_(stop), vocabulary_(Vocabulary::load(job.vocabulary)) {
    std::optional<C4Cleaner> cleaner;
    if (job.uses_c4_rules)
      cleaner.emplace(job.bad_words ? read_bad_words(*job.bad_words) : std::vector<std::string>{});
    tokenizer_.emplace(vocabulary_, job.input, std::move(cleaner));
    // Every input is opened now, so that a misspelt name does not come up hours later.
    std::error_code code;
    for (const Path& input : job.inputs) {
      open_bytes(input);
      if (!std::filesystem::is_regular_file(input, code))
        throw InputError(format("{}: not a regular file", input.string()));
    }
    if (!job.overwrites && std::filesystem::exists(job.output, code))
      throw UsageError(format("{}: exists; remove it, choose another --output, or add --overwrite",
                              job.output.string()));
    folder_.emplace(job.output);
    for (const Path& input : job.inputs) parts_.push_back(folder_->path() / part_name(input));
  }

  CorpusReport run() {
    const Stopwatch clock;
    CorpusReport report;
    report.this_run = tokenize();
    report.seconds = clock.seconds();
    check_any_document();
    report.all = join();
    folder_->remove();
    return report;
  }

 private:
  // Throws, leaving nothing behind, when all the text came to nothing.
  void check_any_document() {
    CorpusCounts all;
    for (const Path& part : parts_) all += PartReader(part).counts();
    if (all.documents > 0) return;
    folder_->remove();
    throw InputError(format("{}: not written: the input has no document with any text\n{}",
                            job_.output.string(), report_table(all, {}, 0)));
  }

  // A part belongs to a file's state and to everything that decides its tokens.
  std::string part_name(const Path& input) const {
    const auto time = std::filesystem::last_write_time(input).time_since_epoch().count();
    std::string identity = format(
        "part 1\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n", std::filesystem::absolute(input).string(),
        std::filesystem::file_size(input), time, vocabulary_.hash(), job_.input.format,
        job_.input.key, job_.input.invalid_utf8, job_.uses_c4_rules);
    if (job_.bad_words) identity += read_file(*job_.bad_words);
    return hash128(identity).text();
  }

  CorpusCounts tokenize() {
    std::vector<Path> files, parts;
    uint64_t bytes = 0;
    size_t num_done = 0;
    for (size_t i = 0; i < parts_.size(); ++i) {
      if (PartReader::is_complete(parts_[i])) {
        ++num_done;
      } else if (std::find(parts.begin(), parts.end(), parts_[i]) == parts.end()) {
        files.push_back(job_.inputs[i]);
        parts.push_back(parts_[i]);
        bytes += std::filesystem::file_size(job_.inputs[i]);
      }
    }
    if (num_done > 0)
      log_info("[data] going on: {} of {} files were done before", num_done, job_.inputs.size());
    return write_parts(files, parts, bytes);
  }

  CorpusCounts write_parts(const std::vector<Path>& files, const std::vector<Path>& parts,
                           uint64_t total_bytes) {
    InputReader reader(files, job_.input);
    OrderedPipeline<InputBlock, OutputBlock> pipeline(
        [&] { return reader.next(); },
        [&](InputBlock input) {
          return OutputBlock{input.file, input.is_last, input.block.file_position,
                             tokenizer_->run(files[input.file], input.block)};
        },
        job_.num_workers);
    Progress progress("tokenising", total_bytes);
    CorpusCounts all, counts;
    std::optional<PartWriter> writer;
    uint64_t bytes_before = 0;
    while (auto output = pipeline.next()) {
      check_stop();
      if (!writer) writer.emplace(parts[output->file]);
      const int32_t* tokens = output->tokenized.tokens.data();
      for (const auto& document : output->tokenized.documents) {
        writer->append({tokens, document.num_tokens}, document.text_bytes, document.hash);
        tokens += document.num_tokens;
      }
      counts += output->tokenized.counts;
      if (!output->is_last) {
        progress.show(bytes_before + output->file_position, all.tokens + counts.tokens);
        continue;
      }
      writer->finish(counts);
      writer.reset();
      all += std::exchange(counts, {});
      bytes_before += std::filesystem::file_size(files[output->file]);
      log_debug("[data] {}: done", files[output->file].string());
    }
    return all;
  }

  CorpusCounts join() {
    CorpusWriter writer(job_.output, vocabulary_, folder_->path() / "joining.h5");
    HashSet seen;
    CorpusCounts all;
    PartDocument document;
    for (const Path& part : parts_) {
      PartReader reader(part);
      all += reader.counts();
      while (reader.next(document)) {
        if (job_.keeps_duplicates || seen.insert(document.hash))
          writer.append(document.tokens, document.text_bytes);
        else
          ++all.duplicate;
        if ((writer.num_documents() & 0xFFF) == 0) check_stop();
      }
    }
    writer.finish();
    all.documents = writer.num_documents();
    all.tokens = writer.num_tokens();
    all.text_bytes = writer.text_bytes();
    return all;
  }

  void check_stop() const {
    if (stop_.requested())
      throw InterruptedError(
          format("stopped on request with {} files finished; run the same command again to go on",
                 folder_->num_finished()));
  }

  const CorpusJob& job_;
  const StopRequest& stop_;
  Vocabulary vocabulary_;
  std::optional<BlockTokenizer> tokenizer_;
  std::optional<WorkFolder> folder_;
  std::vector<Path> parts_;  // without extensions, one for each input
};

}  // namespace

CorpusReport run_corpus_job(const CorpusJob& job, const StopRequest& stop) {
  return CorpusRun(job, stop).run();
}

}  // namespace stmoe
