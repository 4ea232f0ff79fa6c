"""The parts of Django's fixture loading that the library reads are unchanged."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core import serializers
from django.db.models.signals import m2m_changed

from signalbus.compat.django_internals import loads_a_fixture


@pytest.mark.django_db
def test_links_of_a_fixture_are_recognized():
    """While an object of a fixture is saved, its links are told from those of other code."""
    found: list[bool] = []

    def look(**kwargs):
        found.append(loads_a_fixture())

    user = get_user_model().objects.create_user("ada")
    user.groups.add(Group.objects.create(name="staff"))
    text = serializers.serialize("json", [user])
    user.groups.clear()
    m2m_changed.connect(look, sender=get_user_model().groups.through)
    try:
        for loaded in serializers.deserialize("json", text):
            loaded.save()
        user.groups.clear()
    finally:
        m2m_changed.disconnect(look, sender=get_user_model().groups.through)
    assert found == [True, True, False, False]
