package jetbrains.buildServer.configs.kotlin.triggers

import jetbrains.buildServer.configs.kotlin.Triggers

class VcsTrigger {
  var branchFilter = ""
}

fun Triggers.vcs(init: VcsTrigger.() -> Unit) = VcsTrigger().init()
