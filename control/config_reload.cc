#include "control/config_reload.h"

#include <map>
#include <utility>

#include "control/config_keys.h"

namespace kelp {
namespace {

using Items = std::map<std::string, const ConfigOrigin*>;

Items items_by_key(const Config& config) {
  Items items;
  for (const ConfigOrigin& item : config.origins) items[item.key] = &item;
  return items;
}

const ConfigOrigin* find(const Items& items, const std::string& key) {
  const auto found = items.find(key);
  return found == items.end() ? nullptr : found->second;
}

ConfigReload take_from(const Config& wanted, Config& running) {
  ConfigReload reload;
  const Items wanted_items = items_by_key(wanted);
  for (ConfigOrigin& item : running.origins) {
    const ConfigOrigin* now = find(wanted_items, item.key);
    item.after_restart.clear();
    if (now != nullptr && (now->value == item.value || item.reloadable)) {
      if (now->value != item.value) reload.applied.push_back({item.key, item.value, now->value});
      item = *now;
      continue;
    }
    // Only a [[target.directory]] can be missing from a configuration.
    item.after_restart = now == nullptr ? "null" : now->value;
    reload.needs_restart.push_back({item.key, item.value, now == nullptr ? "" : now->value});
  }
  const Items running_items = items_by_key(running);
  for (const ConfigOrigin& item : wanted.origins) {
    if (find(running_items, item.key) == nullptr) {
      reload.needs_restart.push_back({item.key, "", item.value});
    }
  }
  // No [[target.directory]] key is reloadable, so there is no entry but 0.
  for (const ConfigKey& key : config_keys()) {
    if (key.reloadable) key.copy(running, wanted, 0);
  }
  return reload;
}

}  // namespace

Result<ConfigReload> apply_reload(Config& running, const Config& wanted) {
  Config next = running;
  ConfigReload reload = take_from(wanted, next);
  // Its limits can be reloaded, and it goes on until a restart.
  if (const Result<void> fit = judge_sidecar_memory(next); !fit) {
    return plain_error(fit.error().what + "; one that runs goes on until kelpd is restarted");
  }
  running = std::move(next);
  return reload;
}

}  // namespace kelp
