// Declares the part of TeamCity's DSL that settings.kts uses, as the public documentation describes it, so that a
// compiler can check the settings without a server. It shows that they are valid Kotlin, not that a server accepts
// them. No build uses it.

package jetbrains.buildServer.configs.kotlin

var version = ""

object DslContext {
  val settingsRoot = VcsRoot()
}

class VcsRoot

enum class FailureAction { FAIL_TO_START, CANCEL, ADD_PROBLEM, IGNORE }

class VcsSettings {
  var cleanCheckout = false

  fun root(root: VcsRoot) = check(root == DslContext.settingsRoot)
}

class BuildSteps

class Triggers

class ParametrizedWithType {
  val names = mutableListOf<String>()

  fun param(
    name: String,
    value: String,
  ) = check(names.add(name) && value.isNotEmpty())

  fun text(
    name: String,
    value: String,
    label: String = "",
    description: String = "",
    allowEmpty: Boolean = true,
  ) = check(names.add(name) && (value + label + description).isNotEmpty() || allowEmpty)
}

class FailureConditions {
  var executionTimeoutMin = 0
}

class Requirements {
  fun equals(
    name: String,
    value: String,
  ) = check(name.isNotEmpty() && value.isNotEmpty())
}

class SnapshotDependency {
  var onDependencyFailure = FailureAction.IGNORE
}

class ArtifactDependency {
  var artifactRules = ""
}

class Dependencies {
  fun snapshot(
    buildType: BuildType,
    init: SnapshotDependency.() -> Unit,
  ) = buildType.run { SnapshotDependency().init() }

  fun artifacts(
    buildType: BuildType,
    init: ArtifactDependency.() -> Unit,
  ) = buildType.run { ArtifactDependency().init() }
}

open class BuildType(
  init: BuildType.() -> Unit,
) {
  enum class Type { REGULAR, COMPOSITE, DEPLOYMENT }

  var name = ""
  var type = Type.REGULAR
  var artifactRules = ""
  var enablePersonalBuilds = true
  var maxRunningBuilds = 0

  init {
    init()
  }

  fun id(id: String) = check(id.all { it.isLetterOrDigit() })

  fun vcs(init: VcsSettings.() -> Unit) = VcsSettings().init()

  fun steps(init: BuildSteps.() -> Unit) = BuildSteps().init()

  fun triggers(init: Triggers.() -> Unit) = Triggers().init()

  fun params(init: ParametrizedWithType.() -> Unit) = ParametrizedWithType().init()

  fun failureConditions(init: FailureConditions.() -> Unit) = FailureConditions().init()

  fun requirements(init: Requirements.() -> Unit) = Requirements().init()

  fun dependencies(init: Dependencies.() -> Unit) = Dependencies().init()
}

class Project {
  var description = ""

  fun params(init: ParametrizedWithType.() -> Unit) = ParametrizedWithType().init()

  fun buildType(buildType: BuildType) = check(buildType.name.isNotEmpty())
}

fun project(init: Project.() -> Unit) = Project().init()
