#include "stream.h"

namespace fake {

void Ticket::wait() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return is_done; });
}
void Ticket::done() {
    std::lock_guard lock(mutex);
    is_done = true;
    changed.notify_all();
}
bool Ticket::ready() {
    std::lock_guard lock(mutex);
    return is_done;
}

Stream::Stream(bool blocking) : blocking(blocking) {
    thread = std::thread([this] { run(); });
}

Stream::~Stream() {
    {
        std::lock_guard lock(mutex);
        closing = true;
        changed.notify_all();
    }
    thread.join();
}

TicketPtr Stream::push(std::vector<TicketPtr> after, std::function<void()> work) {
    auto ticket = std::make_shared<Ticket>();
    std::lock_guard lock(mutex);
    queue.push_back({std::move(after), std::move(work), ticket});
    last = ticket;
    changed.notify_all();
    return ticket;
}

TicketPtr Stream::tail() {
    std::lock_guard lock(mutex);
    return last;
}

void Stream::run() {
    for (;;) {
        Item item;
        {
            std::unique_lock lock(mutex);
            changed.wait(lock, [&] { return closing || !queue.empty(); });
            if (queue.empty()) return;
            item = std::move(queue.front());
            queue.pop_front();
        }
        for (const TicketPtr &t : item.after) t->wait();
        item.work();
        item.ticket->done();
    }
}

}  // namespace fake
