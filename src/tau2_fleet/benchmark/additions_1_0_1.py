"""What τ²-bench 1.0.1 has beside the installed package's code: one tool of retail's agent, two of mock's customer.

Written for this program; `versions/tau2_1_0_1.py` gives it to the package's environments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel
from tau2.domains.retail.data_model import Variant
from tau2.domains.retail.tools import RetailTools
from tau2.environment.db import DB
from tau2.environment.toolkit import ToolKitBase, ToolType, is_tool


class Notification(BaseModel):
    """Something that mock's customer was told."""

    notification_id: str
    message: str
    status: Literal["unread", "read"]
    task_id: str | None = None


class MockUserDB(DB):  # type: ignore[misc]
    """What mock's customer has before it."""

    notifications: dict[str, Notification]


class MockUserTools(ToolKitBase):  # type: ignore[misc]
    """What mock's customer can do."""

    db: MockUserDB

    def __init__(self, db: MockUserDB) -> None:
        super().__init__(db)

    @is_tool(ToolType.READ)  # type: ignore[untyped-decorator]
    def check_notifications(self) -> list[Notification]:
        """Look at your notifications.

        Returns:
            All of them, each with its status.
        """
        return list(self.db.notifications.values())

    @is_tool(ToolType.WRITE)  # type: ignore[untyped-decorator]
    def dismiss_notification(self, notification_id: str) -> str:
        """Dismiss one of your notifications, which marks it as read.

        Args:
            notification_id: The id of the notification, such as 'notif_1'.

        Returns:
            That it is dismissed.

        Raises:
            ValueError: If there is no such notification.
        """
        self._notification(notification_id).status = "read"
        return f"Notification {notification_id} dismissed"

    def add_notification(self, notification_id: str, message: str, task_id: str | None = None) -> Notification:
        """For a task's initial state: a notification that was not read yet."""
        added = Notification(notification_id=notification_id, message=message, status="unread", task_id=task_id)
        self.db.notifications[notification_id] = added
        return added

    def assert_notification_status(self, notification_id: str, expected_status: str) -> bool:
        """For a task's assertions."""
        return self._notification(notification_id).status == expected_status

    def _notification(self, notification_id: str) -> Notification:
        if notification_id not in self.db.notifications:
            raise ValueError(f"Notification {notification_id} not found")
        return self.db.notifications[notification_id]


class RetailToolsWithItems(RetailTools):  # type: ignore[misc]
    """Retail's tools and one that looks up an item by its own id."""

    @is_tool(ToolType.READ)  # type: ignore[untyped-decorator]
    def get_item_details(self, item_id: str) -> Variant:
        """Get the inventory details of an item.

        Args:
            item_id: The item id, such as '6086499569'. Be careful the item id is different from the product id.

        Returns:
            The item.

        Raises:
            ValueError: If there is no such item.
        """
        for product in self.db.products.values():
            if item_id in product.variants:
                return product.variants[item_id]
        raise ValueError("Item not found")


# Python's own messages about a call's arguments name the function by this.
RetailToolsWithItems.get_item_details.__qualname__ = "RetailTools.get_item_details"


def _in_their_order(toolkit: RetailToolsWithItems) -> dict[str, Callable[..., Any]]:
    """The package lists a class's own tools before those that it inherits; this one stands behind another."""
    listed: dict[str, Callable[..., Any]] = {}
    for name, tool in RetailTools._func_tools.fget(toolkit).items():
        listed[name] = tool
        if name == "get_product_details":
            listed["get_item_details"] = RetailToolsWithItems.get_item_details
    return listed


RetailToolsWithItems._func_tools = property(_in_their_order)
