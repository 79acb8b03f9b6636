// SPDX-License-Identifier: Apache-2.0
// Files on disk. Reading throws InputError, writing throws StorageError; both name the path and the
// reason.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace stmoe {

using Path = std::filesystem::path;

std::string read_file(const Path& path);

// Writes `contents` under a temporary name in the same directory, flushes it to disk and renames it
// over `path`.
void write_file_atomically(const Path& path, std::string_view contents);

// Flushes a file's or a directory's contents to disk.
void sync_to_disk(const Path& path);

// Creates a directory and its parents.
void make_directories(const Path& path);

// Renames within a file system and flushes the parent directory, so that the new name survives a
// power cut.
void rename_durably(const Path& from, const Path& to);

// Removes a file or a tree; a missing path is fine.
void remove_all(const Path& path);

// Bytes free for an ordinary user on the file system that holds `path`.
std::uintmax_t free_bytes(const Path& path);

}  // namespace stmoe
