// Log lines of the control thread and what it starts: one line each on stderr, structured as
//   2026-01-31T12:00:00.123Z info  client attached client=17 name="trainer" uid=1000
// Never called by a worker's loop: workers count, the control thread tells.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "control/config.h"

namespace kelp {

/// A value is quoted where it holds anything but printable characters without spaces or quotes.
using LogField = std::pair<std::string_view, std::string>;

void set_log_level(LogLevel level);
/// Whether lines of that level are written.
bool log_enabled(LogLevel level);

/// kJson: {"time": ..., "level": ..., "message": ..., and the fields}, all of them texts.
/// Control thread, while no other logs.
void set_log_format(LogFormat format);

void log_debug(std::string_view message, std::initializer_list<LogField> fields = {});
void log_info(std::string_view message, std::initializer_list<LogField> fields = {});
void log_warning(std::string_view message, std::initializer_list<LogField> fields = {});
void log_error(std::string_view message, std::initializer_list<LogField> fields = {});

}  // namespace kelp
