// Where `kelpctl read` puts the bytes: stdout, or a file that appears whole or not at all.
#pragma once

#include <cstddef>
#include <string>

#include "tools/failure.h"

namespace kelp {

class OutputFile {
 public:
  /// "" or "-" is stdout. An existing file that is not a regular one (a FIFO, /dev/null) is written
  /// in place. Any other is written beside its final name, and nothing is left of it unless
  /// commit() is reached.
  static Outcome<OutputFile> open(const std::string& path);

  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();

  Outcome<void> write(const void* bytes, std::size_t count);

  /// The file is complete: gives it its name. Once, at the end.
  Outcome<void> commit();

 private:
  OutputFile(int fd, std::string shown_name) : fd_(fd), shown_name_(std::move(shown_name)) {}
  static Outcome<OutputFile> beside(const std::string& final_path);
  Outcome<void> name_it();
  tl::unexpected<Failure> failed(int os_error) const;

  int fd_;
  std::string shown_name_;
  std::string final_path_;      ///< empty: written in place
  std::string temporary_path_;  ///< empty: the file has no name yet, so a kill leaves nothing
};

/// Writes all of it to stdout.
Outcome<void> write_stdout(const std::string& text);

}  // namespace kelp
