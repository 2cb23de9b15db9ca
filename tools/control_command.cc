#include "tools/control_command.h"

#include <nlohmann/json.hpp>

#include "tools/control_client.h"
#include "tools/control_views.h"
#include "tools/json_fields.h"
#include "tools/output_file.h"
#include "tools/table.h"

namespace kelp {
namespace {

struct Parsed {
  ControlAnswer answer;
  nlohmann::json value;
};

using Request = Outcome<ControlAnswer> (*)(const CommonOptions&, const std::string&);

Outcome<Parsed> ask(const CommonOptions& common, const std::string& path,
                    Request request = &control_get) {
  Outcome<ControlAnswer> answer = request(common, path);
  if (!answer) return tl::unexpected(answer.error());
  nlohmann::json value = nlohmann::json::parse(answer->body, nullptr, false);
  if (!value.is_object()) {
    return fail(ExitCode::kOther, "what answers " + path + " at " + control_socket_path(common) +
                                      " is not JSON (HTTP " + std::to_string(answer->status) +
                                      "): is it a kelpd of this version?");
  }
  return Parsed{std::move(*answer), std::move(value)};
}

Outcome<void> show(const CommonOptions& common, const Parsed& parsed, ControlView view,
                   bool colour) {
  if (!common.json) return write_stdout(view(parsed.value, colour));
  std::string body = parsed.answer.body;
  if (!body.ends_with('\n')) body += '\n';
  return write_stdout(body);
}

tl::unexpected<Failure> refused(const std::string& path, const Parsed& parsed) {
  return fail(ExitCode::kOther, "kelpd answers " + path + " with HTTP " +
                                    std::to_string(parsed.answer.status) + ": " +
                                    printable(field_text(parsed.value, "error")));
}

}  // namespace

namespace {

Outcome<void> run(const CommonOptions& common, const std::string& path, Request request,
                  ControlView view, bool colour) {
  const Outcome<Parsed> parsed = ask(common, path, request);
  if (!parsed) return tl::unexpected(parsed.error());
  if (parsed->answer.status != 200) return refused(path, *parsed);
  return show(common, *parsed, view, colour);
}

}  // namespace

Outcome<void> run_control(const CommonOptions& common, const std::string& path, ControlView view,
                          bool colour) {
  return run(common, path, &control_get, view, colour);
}

Outcome<void> run_action(const CommonOptions& common, const std::string& path, ControlView view,
                         bool colour) {
  return run(common, path, &control_post, view, colour);
}

Outcome<nlohmann::json> ask_control(const CommonOptions& common, const std::string& path) {
  Outcome<Parsed> parsed = ask(common, path);
  if (!parsed) return tl::unexpected(parsed.error());
  if (parsed->answer.status != 200) return refused(path, *parsed);
  return std::move(parsed->value);
}

Outcome<void> run_health(const CommonOptions& common, bool colour) {
  const Outcome<Parsed> parsed = ask(common, "/health");
  if (!parsed) return tl::unexpected(parsed.error());
  // A failed daemon may say so with a status of 503; an answer without "status" is no health.
  const std::string status = field_text(parsed->value, "status");
  if (!field(parsed->value, "status").is_string()) return refused("/health", *parsed);
  Outcome<void> shown = show(common, *parsed, &view_health, colour);
  if (!shown || status == "healthy" || status == "degraded") return shown;
  return fail(ExitCode::kOther, "");  // the answer has said it all
}

}  // namespace kelp
