// kelpctl health, stats, volumes, clients, config, reload, ...: one question to the control socket,
// one answer on stdout.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "tools/failure.h"
#include "tools/options.h"

namespace kelp {

using ControlView = std::string (*)(const nlohmann::json& answer, bool colour);

/// Asks for `path` and writes the answer: as it came with --json, else through `view`.
Outcome<void> run_control(const CommonOptions& common, const std::string& path, ControlView view,
                          bool colour);

/// The same with a POST: the daemon does something.
Outcome<void> run_action(const CommonOptions& common, const std::string& path, ControlView view,
                         bool colour);

/// The object that answers GET `path` with 200.
Outcome<nlohmann::json> ask_control(const CommonOptions& common, const std::string& path);

/// The same for /health. Healthy and degraded (reads are answered) end well; failed does not.
Outcome<void> run_health(const CommonOptions& common, bool colour);

}  // namespace kelp
