// A bounded map for primitives that many weights share.
#pragma once

#include <cstddef>
#include <list>
#include <map>
#include <mutex>
#include <utility>

#include "core/fork.h"

namespace tae::onednn {

// At most kMaxEntries, least recently used out first. Value: a shared_ptr.
template <typename Key, typename Value, size_t kMaxEntries>
class LruCache {
 public:
  // Null when there is none.
  Value find(const Key& key) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return find_locked(key);
  }

  // What is kept: `made`, or what another thread made meanwhile.
  Value insert(const Key& key, Value made) {
    Value dropped;  // destroyed after the lock
    const std::lock_guard<std::mutex> lock(mutex_);
    if (Value other = find_locked(key)) return other;
    recent_.push_front(key);
    entries_[key] = {made, recent_.begin()};
    if (entries_.size() > kMaxEntries) {
      const auto oldest = entries_.find(recent_.back());
      dropped = std::move(oldest->second.value);
      entries_.erase(oldest);
      recent_.pop_back();
    }
    return made;
  }

 private:
  struct Entry {
    Value value;
    typename std::list<Key>::iterator position;
  };

  Value find_locked(const Key& key) {
    const auto found = entries_.find(key);
    if (found == entries_.end()) return nullptr;
    recent_.splice(recent_.begin(), recent_, found->second.position);
    return found->second.value;
  }

  std::mutex& mutex_ = fork_safe_mutex(this);
  std::map<Key, Entry> entries_;
  std::list<Key> recent_;  // most recently used first
};

}  // namespace tae::onednn
